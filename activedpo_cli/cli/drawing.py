"""Charts and sparklines drawn with characters, those that the output's encoding has."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

NARROWEST_PLOT = 8
"""Columns below which no chart is drawn."""


@dataclass(frozen=True)
class Symbols:
    """One set of signs; each but the levels and the range is a single cell wide."""

    done: str = "✓"
    running: str = "▸"
    waiting: str = "·"
    levels: str = "▁▂▃▄▅▆▇█"
    nothing: str = "–"
    to: str = "…"
    between: str = "·"
    point: str = "●"
    second_point: str = "◆"
    low_end: str = "├"
    interval: str = "─"
    high_end: str = "┤"


UNICODE = Symbols()
ASCII = Symbols("+", ">", ".", "_.-~=+*#", "-", "..", "|", "o", "x", "[", "-", "]")


def symbols_for(stream: Any) -> Symbols:
    """The signs that a stream can carry."""
    signs = "".join(getattr(UNICODE, field.name) for field in fields(UNICODE))
    return UNICODE if encodable(signs, stream) == signs else ASCII


def encodable(text: str, stream: Any) -> str:
    r"""`text` with what the stream's encoding lacks written out, such as `\u03bb`."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


@dataclass(frozen=True)
class Point:
    """A value at a number of labels, with the ends of its interval where it has one. All numbers are finite."""

    labels: int
    value: float
    low: float | None = None
    high: float | None = None


def draw_chart(points: Sequence[Point], *, width: int, mark: str, symbols: Symbols) -> list[str]:
    """A row for each point: its labels, and its value on its interval; below them the least and the greatest number.

    Between these two the columns are in proportion. Nothing is drawn where there is no point, or no room for a plot.
    """
    margin = max((len(str(point.labels)) for point in points), default=0) + 2
    columns = width - margin
    if not points or columns < NARROWEST_PLOT:
        return []
    rows = [[point.value if end is None else end for end in (point.low, point.value, point.high)] for point in points]
    least, greatest = min(map(min, rows)), max(map(max, rows))
    lines = []
    for point, numbers in zip(points, rows, strict=True):
        low, value, high = (_place(number, least, greatest, columns) for number in numbers)
        cells = list(" " * low + symbols.interval * (high - low + 1))
        cells[low], cells[high] = symbols.low_end, symbols.high_end
        cells[value] = mark
        lines.append(f"{point.labels:>{margin - 2}}  {''.join(cells)}")
    if least == greatest:
        return [*lines, " " * margin + f"{least:.6g}".rjust(_place(least, least, greatest, columns) + 1)]
    return [*lines, " " * margin + f"{least:.6g}" + f"{greatest:.6g}".rjust(columns - len(f"{least:.6g}"))]


def sparkline(values: Sequence[float], symbols: Symbols) -> str:
    """A sign for each value, the lowest for the least and the highest for the greatest; middling where all are equal."""
    least, greatest = min(values), max(values)
    return "".join(symbols.levels[_place(value, least, greatest, len(symbols.levels))] for value in values)


def _place(value: float, least: float, greatest: float, cells: int) -> int:
    """The cell, from 0 for the least number to `cells - 1` for the greatest, in which `value` lies."""
    # Fractions, since floats overflow between two huge numbers and lose the difference of two tiny ones.
    extent = Fraction(greatest) - Fraction(least)
    return round((Fraction(value) - Fraction(least)) / extent * (cells - 1)) if extent else (cells - 1) // 2
