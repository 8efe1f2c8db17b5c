"""Parts: work without a command of its own, such as the pool or a report, made by whoever needs it first.

The pool of responses, the initial adapter, the evaluation of the initial model and a report are such parts. What is there,
what differs, who works and what is kept is decided here as `runner` decides it for stages.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from activedpo_cli.base.errors import BusyError, InvalidDataError, StorageError
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.regular_files import open_regular
from activedpo_cli.engine.carrying_out import Task, carry_out
from activedpo_cli.engine.company import refuse_while_shared
from activedpo_cli.engine.differences import differences_of_work
from activedpo_cli.engine.step import Execution
from activedpo_cli.engine.units import Work
from activedpo_cli.store import files
from activedpo_cli.store.audit import file_fault
from activedpo_cli.store.lock import HeldLock, exclusive
from activedpo_cli.store.manifest import MANIFEST_NAME, STARTED_NAME, Manifest, Started
from activedpo_cli.store.stage_folder import StageFolder, set_aside, swap_in


def _accept(differences: list[str]) -> None:
    """Let it be made again."""


def _trust(folder: StageFolder) -> bool:
    """Look no closer."""
    return True


def _replace(path: Path) -> None:
    """Let a copy take the place of what is there."""


def _nothing_to_check() -> None:
    """Let it be made."""


@dataclass(frozen=True)
class Part:
    """What is wanted, where, and how it is made.

    Attributes:
        folder: Where its files are.
        lock: The lock held by whoever makes it.
        wanted: What identifies it: its name, version, settings and inputs.
        open: Takes the work up in the folder that it is given.
        files: Settings that name a file, and the name of its content among the inputs.
        logs: Files that do not identify the result, because they hold times.
        stale: Where a part that was made otherwise is kept; None where nothing of it is worth keeping.
        is_usable: Looks at a part that is there, which is made again where this says no; raises where that loses something.
        refuse: Called with what differs in a finished part that was made otherwise; raises where it may not be replaced.
        public: By the name of an output the file where a copy of it stands, for people; None where there are no copies.
        replace: Called before a copy takes the place of another file there; raises where that one may not be lost.
        check: Called before it is made, under the lock; raises where it should not be.
        is_shared: Whether several processes may do its units together.

    """

    folder: StageFolder
    lock: Path
    wanted: Started
    open: Callable[[StageFolder], Work]
    files: Mapping[str, str] = field(default_factory=dict)
    logs: tuple[str, ...] = ()
    stale: Path | None = None
    is_usable: Callable[[StageFolder], bool] = _trust
    refuse: Callable[[list[str]], None] = _accept
    public: Callable[[str], Path] | None = None
    replace: Callable[[Path], None] = _replace
    check: Callable[[], None] = _nothing_to_check
    is_shared: bool = False

    @property
    def beside(self) -> StageFolder:
        """Where one is made that will take the place of a finished one."""
        return StageFolder(self.folder.path.with_name(f".{self.folder.path.name.removeprefix('.')}.redo"))

    @property
    def standing(self) -> Manifest | None:
        """The record of the finished part, None unless it is what is wanted; raises what `is_usable` and `refuse` do."""
        made = self.folder.manifest
        if made is None:
            return None
        differences = differences_of_work(made, self.wanted, self.files)
        if differences:
            self.refuse(differences)
            return None
        return made if self.is_usable(self.folder) else None


def ensure(part: Part, execution: Execution, progress: Progress, *, force: bool = False) -> tuple[Manifest, bool]:
    """The part as it is wanted, made now unless it is there; says whether it was made now.

    One that was made otherwise stands until the new one is whole, and is kept in `stale` then. `force` makes it again in
    any case, also where its record is damaged. Raises BusyError while another process makes it.
    """
    if not force and (made := part.standing) and not _copies_to_make(part, made):
        return made, False
    with exclusive(part.lock, str(part.folder.path), execution.patience) as lock:
        if not execution.shard:
            refuse_while_shared(_claims(part), str(part.folder.path))
        files.remove_leftovers(part.folder.path)
        waiting = part.beside.manifest  # finished by a process that was killed before it could swap it in
        if waiting and (not part.folder.path.exists() or not differences_of_work(waiting, part.wanted)):
            _put_in_place(part.beside, waiting, part)
            if not differences_of_work(waiting, part.wanted):
                return waiting, True
        if not force and (made := part.standing) and _are_copies_sound(part, made):
            _publish(part, part.folder, made)
            return made, False
        part.check()
        return _make(part, execution, progress, lock), True


def _make(part: Part, execution: Execution, progress: Progress, lock: HeldLock) -> Manifest:
    """Make it, beside what stands in its place if anything does."""
    is_begun_there = not part.folder.path.exists() or part.folder.has(STARTED_NAME)
    target = part.folder if is_begun_there and not part.folder.has(MANIFEST_NAME) else part.beside
    if target.started is None or differences_of_work(target.started, part.wanted):
        _clear(target, part.stale)
    task = Task(target, part.wanted, _claims(part), part.logs, lock if part.is_shared else None)
    try:
        made = carry_out(task, lambda: part.open(target), execution, progress)
    except BaseException:
        with suppress(StorageError, BusyError):  # what ended the work is what has to be said
            if lock.is_held:
                refuse_while_shared(_claims(part), str(target.path))
                target.discard_if_empty()
        raise
    if made is None:  # another of several processes has finished it, and put it in place
        standing = part.folder.manifest
        assert standing is not None
        return standing
    _put_in_place(target, made, part)
    return made


def _put_in_place(made_in: StageFolder, made: Manifest, part: Part) -> None:
    """Publish what was made, then let it take the place of the old one; after a kill between the two both are done again."""
    _publish(part, made_in, made)
    if made_in.path != part.folder.path:
        swap_in(made_in, part.folder, part.stale)


def _copies_to_make(part: Part, made: Manifest) -> list[tuple[str, Path]]:
    """The outputs whose copies are not there, or hold something else, and where these belong."""
    if part.public is None:
        return []
    places = {name: part.public(name) for name in made.outputs}
    return [
        (name, path)
        for name, path in places.items()
        if file_fault(path.parent, path.name, made.outputs[name]) is not None
    ]


def _are_copies_sound(part: Part, made: Manifest) -> bool:
    """Whether what would be copied is what was made."""
    names = [name for name, _ in _copies_to_make(part, made)]
    return all(file_fault(part.folder.path, name, made.outputs[name]) is None for name in names)


def _publish(part: Part, made_in: StageFolder, made: Manifest) -> None:
    """Put copies of the outputs where people look for them; only a copy of what is replaced gives way unasked."""
    try:
        replaced = part.folder.manifest
    except InvalidDataError:
        replaced = None
    for name, path in _copies_to_make(part, made):
        before = replaced.outputs.get(name) if replaced is not None and made_in.path != part.folder.path else None
        if path.exists() and (before is None or file_fault(path.parent, path.name, before) is not None):
            part.replace(path)
        with open_regular(made_in.path / name) as stream:
            files.write_bytes(path, stream.read())


def _claims(part: Part) -> Path:
    """Where its units are claimed."""
    return part.lock.with_suffix("")


def _clear(target: StageFolder, stale: Path | None) -> None:
    """Empty the folder, or set it aside in `stale`: its work was begun with other settings, or has no record."""
    if stale is None:
        files.remove(target.path)
    else:
        set_aside(target, stale)
