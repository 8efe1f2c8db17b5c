"""Parts: work without a command of its own, such as the pool or a report, made by whoever needs it first.

The pool of responses, the initial adapter, the evaluation of the initial model and a report are such parts. What is there,
what differs, who works and what is kept is decided here as `runner` decides it for stages.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from activedpo_cli.base.errors import StorageError
from activedpo_cli.base.progress import Progress
from activedpo_cli.engine.carrying_out import Task, carry_out
from activedpo_cli.engine.differences import differences_of_work
from activedpo_cli.engine.step import Execution
from activedpo_cli.engine.units import Work
from activedpo_cli.store import files
from activedpo_cli.store.audit import file_fault
from activedpo_cli.store.lock import exclusive
from activedpo_cli.store.manifest import Manifest, Started
from activedpo_cli.store.stage_folder import StageFolder, set_aside, swap_in


def _accept(differences: list[str]) -> None:
    """Let it be made again."""


def _trust(folder: StageFolder) -> bool:
    """Look no closer."""
    return True


def _replace(path: Path) -> None:
    """Let a copy take the place of what is there."""


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
        public: Folder in which its outputs stand too, where people look for them.
        replace: Called before a copy takes the place of another file there; raises where that one may not be lost.
        patience: Seconds to wait for another process that makes it.

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
    public: Path | None = None
    replace: Callable[[Path], None] = _replace
    patience: float = 0.0

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
    any case. Raises BusyError while another process makes it.
    """
    if not force and (made := part.standing) and not _copies_to_make(part, made):
        return made, False
    with exclusive(part.lock, str(part.folder.path), part.patience):
        if not force and (made := part.standing):  # another process has made it since
            return _published(part, made), False
        beside = part.beside
        waiting = beside.manifest  # finished by a process that was killed before it could swap it in
        if waiting and not differences_of_work(waiting, part.wanted):
            _swap(beside, part)
            return _published(part, waiting), True
        target = beside if part.folder.manifest else part.folder
        if target.started is None or differences_of_work(target.started, part.wanted):
            _clear(target, part.stale)
        task = Task(target, part.wanted, part.lock.with_suffix(""), part.logs)
        try:
            made = carry_out(task, lambda: part.open(target), execution, progress)
            assert made is not None  # nobody else finishes a part, whose lock is never lent
        except BaseException:
            with suppress(StorageError):  # what ended the work is what has to be said
                target.discard_if_empty()
            raise
        if target.path != part.folder.path:
            _swap(target, part)
        return _published(part, made), True


def _copies_to_make(part: Part, made: Manifest) -> list[str]:
    """The outputs whose copies are not there, or hold something else."""
    if part.public is None:
        return []
    return [name for name, output in made.outputs.items() if file_fault(part.public, name, output) is not None]


def _published(part: Part, made: Manifest) -> Manifest:
    """Put copies of the outputs where people look for them."""
    for name in _copies_to_make(part, made):
        assert part.public is not None
        path = part.public / name
        if path.exists():
            part.replace(path)
        files.write_bytes(path, (part.folder.path / name).read_bytes())
    return made


def _clear(target: StageFolder, stale: Path | None) -> None:
    """Empty the folder, or set it aside in `stale`: its work was begun with other settings, or has no record."""
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
