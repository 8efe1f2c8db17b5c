"""Where an exported policy goes: what stands there, what may be replaced, and how the new folder takes its place at once."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from activedpo_cli.base.errors import InvalidDataError, RefusedError, UsageError
from activedpo_cli.engine.differences import differences_of_work
from activedpo_cli.run.cards import CARD
from activedpo_cli.store import files
from activedpo_cli.store.audit import listed_faults, unknown_files
from activedpo_cli.store.manifest import Manifest, Started
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder

FOLDER = "export"
"""In a run, where exported policies go unless somebody says otherwise."""
EXPORT, VERSION = "export", 2
MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What stands in the place of an export.

    Attributes:
        record: Of the export that is wanted, where it is there; None where it has to be written.
        differences: In what an export that stands there is older than the wanted one.
        is_kept: Whether what stands there holds something of a person's own, and is kept beside when it gives way.

    """

    record: Manifest | None = None
    differences: tuple[str, ...] = ()
    is_kept: bool = False


def checked_place(run: Run, output: Path | None, name: str) -> Path:
    """The folder to write; raises UsageError where a run, or the folder that somebody is in, would be lost with it."""
    if output is None:
        return run.path.absolute() / FOLDER / name
    place, home = output.expanduser().resolve(), run.path.resolve()
    if place.exists() and not place.is_dir():
        raise UsageError(f"`{output}` is not a folder", hint="--output FOLDER")
    if place.is_relative_to(home) and place.parent != home / FOLDER:
        raise UsageError(
            f"`{output}` lies in the run, which holds its own files alone",
            hint=f"--output FOLDER elsewhere, or `{run.path / FOLDER / name}`, where it goes without --output",
        )
    if home.is_relative_to(place) or Path.cwd().is_relative_to(place):
        raise UsageError(
            f"`{output}` holds the run or the folder that you are in, and would be replaced as a whole",
            hint="--output FOLDER elsewhere",
        )
    return place


def standing_at(place: Path, wanted: Started, again: str, *, force: bool) -> Standing:
    """What is there, compared with what is wanted; a card may have been changed by a person.

    Raises RefusedError, unless `force`, where something would be lost that can't be written again; `again` is the command.
    """
    if not place.exists() or not os.listdir(place):
        return Standing()
    try:
        record = StageFolder(place).manifest
    except InvalidDataError:
        record = None
    if record is None or record.stage != EXPORT:
        _refuse(place, [f"it holds `{name}`" for name in sorted(os.listdir(place))], "is no export", again, force)
        return Standing(is_kept=True)
    differences = tuple(differences_of_work(record, wanted))
    faults = listed_faults(StageFolder(place), record)
    if not differences and not force and all(fault.name == CARD for fault in faults):
        return Standing(record=record)
    changed = [fault for fault in [*faults, *unknown_files(StageFolder(place), record)] if fault.kind != "missing"]
    if changed:
        said = [*(f"{fault.name}: {fault.what}" for fault in changed), *differences]
        _refuse(place, said, "was changed since it was written, and is not what would be written now", again, force)
    return Standing(differences=differences, is_kept=bool(changed))


def put(place: Path, save: Callable[[Path], None], *, keep: bool) -> Path | None:
    """Let `save` fill a folder, which stands in its place when it is whole; returns where what stood there went, if kept."""
    new = place.with_name(f".{place.name}.redo")
    for left in (place, new):
        files.remove_leftovers(left)
    files.remove(new)  # of a process that was killed before it could put it in place
    if not place.exists():
        files.write_folder_with(place, save)
        return None
    files.write_folder_with(new, save)
    aside = _beside(place) if keep else None
    if aside is not None:
        files.move(place, aside)
    else:
        files.remove(place)
    files.move(new, place)
    return aside


def _beside(place: Path) -> Path:
    stem, number = f"{place.name}.before-{time.strftime('%Y%m%dT%H%M%S')}", 0
    while (found := place.with_name(stem + (f"-{number}" if number else ""))).exists():
        number += 1
    return found


def _refuse(place: Path, details: list[str], what: str, again: str, force: bool) -> None:
    if force:
        return
    more = [f"and {len(details) - MOST_NAMED} more"] if len(details) > MOST_NAMED else []
    raise RefusedError(
        f"`{place}` {what}",
        details=[*details[:MOST_NAMED], *more],
        hint=f"--output ANOTHER_FOLDER; or `{again} --force`, which keeps this one beside under another name",
    )
