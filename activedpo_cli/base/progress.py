"""How work reports that it advances, without knowing who listens."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """Receives the state of a piece of work; implemented with rich in `cli/render.py`."""

    def start(self, label: str, total: int, unit: str, done: int = 0) -> None:
        """Begin a piece of work of `total` things called `unit`, of which `done` are there already."""

    def advance(self, amount: int = 1) -> None:
        """Say that `amount` more things are done."""

    def stop(self) -> None:
        """End the piece of work."""

    def note(self, message: str) -> None:
        """Pass on one sentence that the user should see."""

    def warn(self, message: str) -> None:
        """Pass on one sentence that the user must not miss."""

    def handed_over(self) -> AbstractContextManager[None]:
        """While it lasts, leave the terminal to a person who answers there."""


class SilentProgress:
    """A listener that ignores everything, for tests and library use."""

    def start(self, label: str, total: int, unit: str, done: int = 0) -> None:
        """Ignore."""

    def advance(self, amount: int = 1) -> None:
        """Ignore."""

    def stop(self) -> None:
        """Ignore."""

    def note(self, message: str) -> None:
        """Ignore."""

    def warn(self, message: str) -> None:
        """Ignore."""

    def handed_over(self) -> AbstractContextManager[None]:
        """Nothing to leave."""
        return nullcontext()


@contextmanager
def shown(progress: Progress, label: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A piece of work, of which `done` is there already, that ends also where it fails; yields what advances it."""
    progress.start(label, total, unit, done)
    try:
        yield progress.advance
    finally:
        progress.stop()
