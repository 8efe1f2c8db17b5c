"""Remembers that a signal asked this process to stop; whoever is about to store a result asks here first.

The signal raises an exception once. A library, or a user's function, may catch that exception and return something that
is no result. Code that is about to store a result therefore asks here first, and ends the work.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PARENT_PIPE = "ACTIVEDPO_ENDS_WITH_STDIN"
"""Set for processes that must not outlive the one that started them: their stdin is a pipe that ends with it."""

_children: set[int] = set()
_last_steps: list[Callable[[], None]] = []
_requested: type[KeyboardInterrupt] | None = None


def request(kind: type[KeyboardInterrupt]) -> None:
    """Note that the work is to end, by which exception."""
    global _requested
    _requested = kind


def is_requested() -> bool:
    """Whether the work is to end."""
    return _requested is not None


def forget() -> None:
    """Note that somebody has dealt with it, as a sitting does from which a person goes away."""
    global _requested
    _requested = None


def raise_if_requested() -> None:
    """Raise the exception again where it was caught on its way: call it before storing what was computed."""
    if _requested is not None:
        raise _requested


def behind(error: BaseException) -> KeyboardInterrupt | None:
    """The interruption that an exception is, or that it came from: libraries raise their own in its place."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, KeyboardInterrupt):
        link = link.__cause__ or link.__context__
    return link


def ends_with_this_process(pid: int) -> None:
    """Note a child that must not survive where a second signal ends this process at once."""
    _children.add(pid)


def has_ended(pid: int) -> None:
    """Note that a child is gone, whose number may soon be another's."""
    _children.discard(pid)


def children() -> frozenset[int]:
    """The children noted that have not ended."""
    return frozenset(_children)


@contextmanager
def last_step(step: Callable[[], None]) -> Iterator[None]:
    """Meanwhile have something done also where a second signal ends this process at once, in whichever thread hears it."""
    _last_steps.append(step)
    try:
        yield
    finally:
        _last_steps.remove(step)


def take_last_steps() -> None:
    """Do what is to be done before the process ends at once; what fails of it is passed over."""
    for step in reversed(_last_steps):
        with suppress(Exception):
            step()
