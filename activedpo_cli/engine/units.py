"""The units of a step's work: named, seeded, claimed, skipped when they are there.

A unit is done by whoever claims it first, by a kernel lock that dies with its process; its file appears whole, so its
presence says that it is done. Who sees that all units are there may finish the step. One process is the case of a single
claimer; several may call `do_units` on one folder at the same time, in one machine or on a shared file system, and need
no word between them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from activedpo_cli.base.launchers import Shard
from activedpo_cli.base.progress import Progress, shown
from activedpo_cli.store.lock import claimed
from activedpo_cli.store.stage_folder import StageFolder


@dataclass(frozen=True)
class Unit:
    """A part of the work that is done as a whole.

    Attributes:
        name: Its file in the step's folder.
        size: How many of the things that are counted it holds.
        seed: The seed of everything random in it, so that neither order nor interruption changes it; None where nothing is.

    """

    name: str
    size: int = 1
    seed: int | None = None


class Work(Protocol):
    """A step at work in one process."""

    def do_what_is_missing(self, claims: Path, progress: Progress, shard: Shard | None = None) -> bool:
        """Do all that is not there and that no other process does; says whether everything is there now."""
        ...

    def finish(self) -> dict[str, Any]:
        """Leave the results in the folder, and return facts for people (the summary)."""
        ...


class UnitWork(Work, Protocol):
    """Work that is cut into units. What these share, such as a loaded model, is kept in it and made when first used."""

    folder: StageFolder

    def counted(self) -> tuple[str, str]:
        """What is done, and the things that are counted, as `("responses to prompts", "prompts")`."""
        ...

    def units(self) -> Sequence[Unit]:
        """All units, in the order of work; the same in every process and after every interruption."""
        ...

    def is_there(self, unit: Unit) -> bool:
        """Whether a unit was made; what `finish` takes away again is there too, as what it was made for."""
        return self.folder.has(unit.name)

    def do(self, unit: Unit) -> None:
        """Make one unit's file."""
        ...

    def let_go(self) -> None:
        """End what was started for units alone, such as other processes; more units may come, and it is started anew."""
        return  # what has an empty body in a protocol counts as abstract

    def do_what_is_missing(self, claims: Path, progress: Progress, shard: Shard | None = None) -> bool:
        """Do every unit that is not there and that nobody else has claimed."""
        return do_units(self, claims, progress, shard)


@dataclass(frozen=True)
class AtOnce:
    """Work that is not cut into units: it begins again, or goes on by means of its own."""

    work: Callable[[], dict[str, Any]]

    def do_what_is_missing(self, claims: Path, progress: Progress, shard: Shard | None = None) -> bool:
        """Do nothing, and say that everything is there: `finish` does all of the work."""
        return True

    def finish(self) -> dict[str, Any]:
        """Do all of the work, and return its summary."""
        return self.work()


def do_units(work: UnitWork, claims: Path, progress: Progress, shard: Shard | None = None) -> bool:
    """Do every unit that is not there and that nobody else has claimed; says whether all are there now.

    Args:
        work: What is cut into units.
        claims: Folder of the lock files by which units are claimed.
        progress: Is told how many of the counted things are there.
        shard: Which of several processes this one is: it begins with units of its own, so that few claims meet, and then
            does those that others have left.

    """
    units = work.units()
    missing = [unit for unit in units if not work.is_there(unit)]
    total = sum(unit.size for unit in units)
    if shard:
        own = {unit.name for unit in units[shard.index :: shard.count]}
        missing.sort(key=lambda unit: unit.name not in own)
    label, things = work.counted()
    try:
        with shown(progress, label, total, things, total - sum(unit.size for unit in missing)) as advance:
            for unit in missing:
                with claimed(claims / f"{unit.name}.lock") as is_ours:
                    if is_ours and not work.is_there(unit):  # another process may have made it since
                        work.do(unit)
                        advance(unit.size)
    finally:
        work.let_go()
    return all(work.is_there(unit) for unit in units)
