"""The interface by which work reports progress, notes and warnings; `cli/render.py` shows them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext


class Progress:
    """Receives the state of a piece of work; `cli/render.py` shows it. What a listener does not define does nothing."""

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
        return nullcontext()


class SilentProgress(Progress):
    """A listener that ignores everything, for tests and library use."""


@contextmanager
def shown(progress: Progress, label: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A piece of work, of which `done` is there already, that ends also where it fails; yields what advances it."""
    progress.start(label, total, unit, done)
    try:
        yield progress.advance
    finally:
        progress.stop()
