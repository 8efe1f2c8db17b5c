"""How a person at a terminal is asked: on the full screen where that is possible, else line by line."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from activedpo_cli.label.queue import Queue
from activedpo_cli.label.terminal import label_session

LEAST_COLUMNS, LEAST_ROWS = 60, 16
LIBRARY, LEAST_VERSION, EXTRA = "textual", (8, 2), "activedpo-cli[tui]"


class Session(Protocol):
    """Asks about pair after pair until none is left for this person or they quit; says whether they quit."""

    def __call__(self, queue: Queue, *, annotator: str, guidelines: str | None = None) -> bool:
        """Hold the sitting."""


@dataclass(frozen=True)
class Front:
    """Where a person sits, as every label says, and what asks them there."""

    channel: str
    ask: Session


def front_of_terminal(*, is_plain: bool, tell: Callable[[str], None]) -> Front:
    """How to ask at this terminal.

    Args:
        is_plain: Whether line by line was asked for, as screen readers need it.
        tell: Hears why it is line by line where somebody could change that.

    """
    line_by_line = Front("plain", label_session)
    if is_plain or os.environ.get("TERM", "dumb") == "dumb":
        return line_by_line
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        return line_by_line
    columns, rows = os.get_terminal_size(sys.stderr.fileno())
    if columns < LEAST_COLUMNS or rows < LEAST_ROWS:
        needed = f"the full screen needs {LEAST_COLUMNS} x {LEAST_ROWS} characters"
        tell(f"{needed}, and this terminal has {columns} x {rows}: asking line by line")
        return line_by_line
    if not _has_library():
        tell(f"the full screen needs the extra `tui` (pip install '{EXTRA}'): asking line by line")
        return line_by_line
    from activedpo_cli.label.tui.session import full_screen_session

    return Front("tui", full_screen_session)


def _has_library() -> bool:
    """Whether the library is installed in a version whose calls are those that are made here."""
    try:
        major, minor = version(LIBRARY).split(".")[:2]
        return (int(major), int(minor)) >= LEAST_VERSION and int(major) == LEAST_VERSION[0]
    except (PackageNotFoundError, ValueError):
        return False
