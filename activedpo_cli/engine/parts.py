"""Work without a command of its own: made by whoever needs it first, and known again by all who come after.

The pool of responses, the initial adapter, the evaluation of the initial model and a report are such parts. What is there,
what differs, who works and what is kept is decided here as `runner` decides it for stages.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from activedpo_cli.base.progress import Progress
from activedpo_cli.engine.carrying_out import Task, carry_out
from activedpo_cli.engine.differences import differences_of_work
from activedpo_cli.engine.step import Execution
from activedpo_cli.engine.units import Work
from activedpo_cli.store import files
from activedpo_cli.store.lock import exclusive
from activedpo_cli.store.manifest import Manifest, Started
from activedpo_cli.store.stage_folder import StageFolder, set_aside, swap_in


def _accept(differences: list[str]) -> None:
    """Let it be made again."""


def _trust(folder: StageFolder) -> None:
    """Look no closer."""


@dataclass(frozen=True)
class Part:
    """What is wanted, where, and how it is made.

    Attributes:
        folder: Where its files are.
        lock: Held by who makes it.
        wanted: What identifies it: its name, version, settings and inputs.
        open: Takes the work up in the folder that it is given.
        files: Settings that name a file, and the name of its content among the inputs.
        logs: Files that do not identify the result, because they hold times.
        stale: Where one that was made otherwise is kept; None where nothing of it is worth keeping.
        check: Called before one that is there is used, and raises where its files are not what was written.
        refuse: Called with the differences of a finished one that was made otherwise; raises where it may not be replaced.

    """

    folder: StageFolder
    lock: Path
    wanted: Started
    open: Callable[[StageFolder], Work]
    files: Mapping[str, str] = field(default_factory=dict)
    logs: tuple[str, ...] = ()
    stale: Path | None = None
    check: Callable[[StageFolder], None] = _trust
    refuse: Callable[[list[str]], None] = _accept

    @property
    def standing(self) -> Manifest | None:
        """The record of the finished part, None unless it is what is wanted; raises what `check` and `refuse` do."""
        made = self.folder.manifest
        if made is None:
            return None
        differences = differences_of_work(made, self.wanted, self.files)
        if differences:
            self.refuse(differences)
            return None
        self.check(self.folder)
        return made


def ensure(part: Part, execution: Execution, progress: Progress, *, force: bool = False) -> tuple[Manifest, bool]:
    """The part as it is wanted, made now unless it is there; says whether it was made now.

    One that was made otherwise stands until the new one is whole, and is kept in `stale` then. `force` makes it again in
    any case. Raises BusyError while another process makes it.
    """
    if not force and (made := part.standing):
        return made, False
    with exclusive(part.lock, str(part.folder.path)):
        if not force and (made := part.standing):  # another process has made it since
            return made, False
        beside = StageFolder(part.folder.path.with_name(f".{part.folder.path.name}.redo"))
        waiting = beside.manifest  # of a process that was killed before it could put it in its place
        if waiting and not differences_of_work(waiting, part.wanted):
            _swap(beside, part)
            return waiting, True
        target = beside if part.folder.manifest else part.folder
        if target.started is None or differences_of_work(target.started, part.wanted):
            _clear(target, part.stale)
        task = Task(target, part.wanted, part.lock.with_suffix(""), part.logs)
        made = carry_out(task, lambda: part.open(target), execution, progress)
        if target.path != part.folder.path:
            _swap(target, part)
        return made, True


def _clear(target: StageFolder, stale: Path | None) -> None:
    """Begin with an empty folder; what lies there was begun otherwise, or nothing says how."""
    if stale is None:
        files.remove(target.path)
    else:
        set_aside(target, stale)


def _swap(target: StageFolder, part: Part) -> None:
    if part.stale is None:
        files.remove(part.folder.path)
        files.move(target.path, part.folder.path)
    else:
        swap_in(target, part.folder, part.stale)
