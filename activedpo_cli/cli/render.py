"""Everything that a person sees: messages and progress on stderr, results on stdout. Foreign text is made harmless."""

import json
import os
import sys
import time
from typing import Any, TextIO

from activedpo_cli.display import display_text
from activedpo_cli.errors import ActiveDPOError

STYLES = {"error": "31;1", "hint": "36", "ok": "32", "warning": "33"}
PLAIN_INTERVAL = 30.0


def print_error(error: ActiveDPOError) -> None:
    """What is wrong, the facts, and the way out."""
    _line(f"{_styled('error', 'error')}: {display_text(error.message)}")
    for detail in error.details:
        _line(f"  {display_text(detail)}")
    if error.hint:
        _line(f"\n{_styled('hint', 'hint')}: {display_text(error.hint)}")


def print_message(text: str, *, style: str | None = None) -> None:
    """One line for the person, on stderr."""
    _line(_styled(display_text(text), style) if style else display_text(text))


def print_result(text: str) -> None:
    """A result, on stdout."""
    sys.stdout.write(display_text(text) + "\n")


def print_json(value: Any) -> None:
    """A result for programs, on stdout; escapes keep it harmless in a terminal."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A table on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(display_text(cell)) for cell in row))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def make_progress(quiet: bool) -> "QuietProgress | PlainProgress | BarProgress":
    """A bar with rate and time left in a terminal, a line now and then elsewhere."""
    if quiet:
        return QuietProgress()
    return BarProgress() if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else PlainProgress()


class QuietProgress:
    """Only warnings."""

    def start(self, label: str, total: int, unit: str, done: int = 0) -> None:
        """Ignore."""

    def advance(self, amount: int = 1) -> None:
        """Ignore."""

    def stop(self) -> None:
        """Ignore."""

    def note(self, message: str) -> None:
        """Ignore."""

    def warn(self, message: str) -> None:
        """Print, also when quiet."""
        print_message(f"warning: {message}", style="warning")


class PlainProgress(QuietProgress):
    """A line every 30 seconds, for logs and pipes."""

    def start(self, label: str, total: int, unit: str, done: int = 0) -> None:
        """Begin to count."""
        self._label, self._total, self._unit = label, total, unit
        self._done = self._first = done
        self._began = self._last = time.monotonic()

    def advance(self, amount: int = 1) -> None:
        """Count, and print a line when the last one is old enough."""
        self._done += amount
        now = time.monotonic()
        if now - self._last >= PLAIN_INTERVAL:
            self._last = now
            rate = (self._done - self._first) / (now - self._began)
            left = (self._total - self._done) / rate if rate else 0
            print_message(
                f"  {self._label}  {self._done} / {self._total} {self._unit}  {rate:.1f} /s  {left:.0f} s left"
            )

    def note(self, message: str) -> None:
        """Print."""
        print_message(message)


class BarProgress(QuietProgress):
    """A bar in the terminal."""

    _bar: Any = None

    def start(self, label: str, total: int, unit: str, done: int = 0) -> None:
        """Show a bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._clock = time.monotonic()
        self._first = done
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{unit}  {{task.fields[rate]}}"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            transient=True,
        )
        self._task = self._bar.add_task(display_text(label), total=total, completed=done, rate="")
        self._bar.start()

    def advance(self, amount: int = 1) -> None:
        """Move the bar."""
        task = self._bar.tasks[0]
        rate = (task.completed + amount - self._first) / max(time.monotonic() - self._clock, 1e-9)
        self._bar.update(self._task, advance=amount, rate=f"{rate:.1f} /s")

    def stop(self) -> None:
        """Take the bar away, if there is one."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def note(self, message: str) -> None:
        """Print above the bar."""
        print_message(message)


def _line(text: str, stream: TextIO | None = None) -> None:
    print(text, file=stream or sys.stderr, flush=True)


def _styled(text: str, style: str | None) -> str:
    if style is None or not sys.stderr.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m"
