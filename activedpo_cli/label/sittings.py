"""Sittings: processes in which people answer, several at once over the pairs of one stage.

While a person thinks, a sitting holds no lock on the stage, so that a second sitting, `label --import` and `status` work
beside it. It takes the lock for the moment in which a pair is handed out or an answer is stored.

A sitting tells the others which pairs it has handed out by a list in `.locks/`, which counts as long as the sitting holds
the lock file beside it. The kernel frees that lock when the process ends, however it ends: no pair is withheld for longer
than somebody looks at it, no lease has to be renewed, and no two clocks have to agree. The same locks keep the stage from
being set aside, or closed with pairs unanswered, under the eyes of the people who sit there.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from activedpo_cli.base.errors import ActiveDPOError, BusyError, StorageError
from activedpo_cli.base.records import Asked, Label
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.engine.step import Context
from activedpo_cli.store import files
from activedpo_cli.store.lock import exclusive, waiting
from activedpo_cli.store.run import Run


class StageLeftError(ActiveDPOError):
    """Another command has closed the stage, or taken its folder away, since the sitting began."""


@contextmanager
def sitting(context: Context) -> "Iterator[SharedAnswers]":
    """Take a place among those who answer, and lend the stage's lock out until the sitting ends."""
    with ExitStack() as place:
        for number in count(1):
            path = context.run.lock_path(f"{_stem(context.iteration)}-{number}")
            with suppress(BusyError):
                place.enter_context(exclusive(path, str(context.folder.path)))
                break
        pairs = path.with_suffix(".pairs")
        files.remove(pairs)  # a process that was killed here left it
        with context.lock.lent():
            try:
                yield SharedAnswers(context, path)
            finally:
                with suppress(StorageError):  # left over, it counts for nothing
                    files.remove(pairs)


def refuse_while_people_answer(run: Run, iteration: int) -> None:
    """Raise BusyError with the process in which people answer; the caller holds the stage's lock, so nobody can sit down."""
    for path in _lock_files(run, iteration):
        with exclusive(path, str(run.stage("label", iteration).path)):
            pass


class SharedAnswers:
    """The answers of a stage, to which others may be adding too: an `AnswerStore` for a `Queue`."""

    def __init__(self, context: Context, own_lock_file: Path) -> None:
        self._context = context
        self._own_lock_file = own_lock_file
        self._began = context.folder.started
        self._log = context.folder.label_log()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the stage's lock for a moment.

        Raises:
            BusyError: Another command kept the lock for too long.
            StageLeftError: The stage is no longer the one that the sitting began with.

        """
        with self._context.lock.for_a_moment():
            if self._context.folder.started != self._began:
                raise StageLeftError(f"`{self._context.folder.path}` was closed or taken away by another command")
            self._log.repair()  # another sitting may have been killed while it wrote
            yield

    def answers(self) -> Sequence[Label]:
        """Every answer that stands."""
        return self._log.answers()

    def given_as(self, answer_id: str) -> Label | None:
        """The answer that was ever stored under this name."""
        labels = (event.label for event in self._log.history())
        return next((label for label in labels if label and label.answer_id == answer_id), None)

    def record(self, label: Label) -> None:
        """Append a label to the log."""
        self._log.append(label)

    def retract(self, asked: Asked) -> None:
        """Append to the log that an answer no longer counts."""
        self._log.retract_answer(asked)

    def held_elsewhere(self) -> Collection[Asked]:
        """What is in the lists of all other sittings that go on."""
        held: set[Asked] = set()
        for path in _lock_files(self._context.run, self._context.iteration):
            if path == self._own_lock_file:
                continue
            try:
                with waiting(path, seconds=0):
                    pass
            except BusyError:
                with suppress(FileNotFoundError, ValueError):  # nothing is handed out yet, or the disk took half a list
                    held |= {Asked(*asked) for asked in json.loads(read_limited(path.with_suffix(".pairs")))}
        return held

    def hold(self, asked: Collection[Asked]) -> None:
        """Write the list of this sitting; it means nothing once the process has ended, so it needs no fsync."""
        files.write_new(self._own_lock_file.with_suffix(".pairs"), json.dumps(list(asked)).encode())


def _stem(iteration: int) -> str:
    return f"iter-{iteration:03d}-label-sitting"


def _lock_files(run: Run, iteration: int) -> list[Path]:
    return sorted(run.lock_path(_stem(iteration)).parent.glob(f"{_stem(iteration)}-*.lock"))
