"""Everything that a person sees: messages and progress on stderr, results on stdout. Foreign text is made harmless."""

import json
import os
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from activedpo_cli.base.display import display_text, redacted_text
from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.cli.drawing import encodable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

STYLES = {"error": "31;1", "pending": "33;1", "hint": "36", "ok": "32", "warning": "33"}
PLAIN_INTERVAL = 30.0
RATE_PERIOD = 600.0
"""Seconds that a rate is measured over: of what takes a minute each, shorter times would see none."""
PIPE_TABLE_WIDTH = 200
TEXT_WIDTH = 100
"""Lines of running text that are longer are hard to read."""
LONGEST_MESSAGE = 4000
"""A message may name something of a file, which may be of any length."""


def print_error(error: ActiveDPOError) -> None:
    """What is wrong, or what is waited for, the facts, and the way out."""
    _line(f"{_styled(error.word, error.word)}: {_set_in(error.message)}")
    for detail in error.details:
        _line(f"  {_set_in(detail)}")
    if error.hint:
        _line(f"\n{_styled('hint', 'hint')}: {_set_in(error.hint)}")


def print_message(text: str, *, style: str | None = None) -> None:
    """One line for the person, on stderr."""
    _line(_styled(safe_text(text), style) if style else safe_text(text))


@contextmanager
def passing_message(text: str) -> Iterator[None]:
    """One line on a terminal's stderr that is gone when the work is done; nothing elsewhere."""
    if not can_redraw():
        yield
        return
    print(display_text(text), end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


def print_result(text: str) -> None:
    """A result, on stdout."""
    sys.stdout.write(encodable(display_text(text), sys.stdout) + "\n")


def print_json(value: Any) -> None:
    """A result for programs, on stdout; escapes keep it harmless in a terminal."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A table on stdout; headings are folded, and else cells, where the terminal is too narrow for it."""
    from rich.table import Table
    from rich.text import Text

    console = _console()
    shown = [[encodable(display_text(cell), sys.stdout) for cell in row] for row in rows]
    widths = [max(*pair) for pair in zip(_widest(columns, shown), map(len, columns), strict=True)]
    if sum(widths) + 2 * (len(columns) - 1) <= console.width and not any("\n" in cell for row in shown for cell in row):
        console.print(Text(_joined(columns, widths), style="table.header"), no_wrap=True, crop=False)
        sys.stdout.writelines(_joined(row, widths) + "\n" for row in shown)
        return
    headings = _folded_headings(columns, shown, console.width)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0) if headings else (0, 1))
    for column in headings or columns:
        table.add_column(column, overflow="fold", no_wrap=bool(headings), vertical="bottom")
    for row in shown:
        table.add_row(*map(Text, row))
    console.print(table)


def fits(columns: list[str], rows: list[list[str]]) -> bool:
    """Whether a table is shown without folding anything."""
    widths = (max(*pair) for pair in zip(_widest(columns, rows), map(len, columns), strict=True))
    return sum(widths) + 2 * (len(columns) - 1) <= _console().width


def text_width() -> int:
    """Columns that a line of running text takes at most, on stdout."""
    return min(TEXT_WIDTH, _console().width)


def _console() -> "Console":
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPE_TABLE_WIDTH, highlight=False)


def _joined(cells: list[str], widths: list[int]) -> str:
    from rich.cells import cell_len

    return "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True))


def _widest(columns: list[str], rows: list[list[str]]) -> list[int]:
    """Of the cells below each heading, in columns of a terminal."""
    from rich.cells import cell_len

    return [
        max((cell_len(line) for row in rows for line in row[place].split("\n")), default=0)
        for place in range(len(columns))
    ]


def _folded_headings(columns: list[str], rows: list[list[str]], width: int) -> list[str] | None:
    """Headings no wider than what stands below them, None where they need not be folded or where that is not enough."""
    widest = _widest(columns, rows)
    gaps = len(columns) - 1
    if sum(max(cells, len(column)) for cells, column in zip(widest, columns, strict=True)) + 2 * gaps <= width:
        return None
    least = [max(cells, *map(len, column.split())) for cells, column in zip(widest, columns, strict=True)]
    if sum(least) + gaps > width:
        return None
    return [textwrap.fill(column, cells) for column, cells in zip(columns, least, strict=True)]


def make_progress(quiet: bool) -> "QuietProgress | PlainProgress | BarProgress":
    """A bar with rate and time left in a terminal, a line now and then elsewhere."""
    if quiet:
        return QuietProgress()
    return BarProgress() if can_redraw() else PlainProgress()


def can_redraw() -> bool:
    """Whether stderr is a terminal on which lines can be drawn over."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


class QuietProgress(SilentProgress):
    """Only warnings."""

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
                f"  {self._label}  {self._done} / {self._total} {self._unit}  {rate_text(rate)}  {left:.0f} s left"
            )

    def note(self, message: str) -> None:
        """Print."""
        print_message(message)


class BarProgress(QuietProgress):
    """A bar in the terminal."""

    _bar: "Bar | None" = None

    def start(self, label: str, total: int, unit: str, done: int = 0) -> None:
        """Show a bar."""
        self._bar = counting_bar(label, total, unit, done)
        self._bar.start()

    def advance(self, amount: int = 1) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], amount)

    def stop(self) -> None:
        """Take the bar away, if there is one."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def note(self, message: str) -> None:
        """Print above the bar."""
        print_message(message)


def counting_bar(label: str, total: int, unit: str, done: int) -> "Bar":
    """What `label` says, a bar, how many of how many there are, how many come in a second, and how long the rest takes."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        """How many are done in a second, once that can be told."""

        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else rate_text(task.speed))

    def text(form: str) -> TextColumn:
        return TextColumn(form, markup=False, table_column=cropped())

    def cropped() -> Column:
        return Column(no_wrap=True, overflow="crop")  # an ellipsis is not in every encoding

    count = text(f"{{task.completed:.0f}}/{{task.total:.0f}} {unit}")
    columns = [text(" {task.description}"), BarColumn(None), count, Rate(cropped())]
    columns.append(TimeRemainingColumn(compact=True, table_column=cropped()))
    bar = Progress(*columns, console=Console(file=sys.stderr), transient=True, speed_estimate_period=RATE_PERIOD)
    bar.add_task(one_line(label), total=total, completed=done)
    return bar


def rate_text(per_second: float) -> str:
    """How many are done in a second, or below one how many seconds each takes: `2.5 /s`, `40.0 s each`."""
    if 0 < per_second < 1:
        return f"{1 / per_second:.1f} s each"
    return f"{per_second:.{1 if per_second < 100 else 0}f} /s"


def safe_text(text: str) -> str:
    """Fit for a terminal, and for the log that it may be kept in."""
    shown = redacted_text(text)
    return display_text(shown if len(shown) <= LONGEST_MESSAGE else shown[:LONGEST_MESSAGE] + " …")


def one_line(text: str) -> str:
    """Foreign text without anything that could steer a terminal or break the line."""
    return " ".join(display_text(text).split())


def _set_in(text: str) -> str:
    """The same where further lines, such as those in the name of a file, can not pass for lines of ours."""
    return safe_text(text).replace("\n", "\n    ")


def _line(text: str, stream: TextIO | None = None) -> None:
    print(text, file=stream or sys.stderr, flush=True)


def _styled(text: str, style: str | None) -> str:
    if style is None or not can_redraw() or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m"
