"""A chart drawn in text: values with their intervals against the labels they cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from activedpo_cli.cli.axis import place, round_ticks, tick_labels
from activedpo_cli.cli.symbols import Symbols

NARROWEST_PLOT = 8
"""Columns below which no chart is drawn."""


@dataclass(frozen=True)
class Point:
    """A value at a number of labels, with the ends of its interval where it has one. All numbers are finite."""

    labels: int
    value: float
    low: float | None = None
    high: float | None = None


def draw_chart(points: Sequence[Point], *, width: int, height: int, mark: str, symbols: Symbols) -> list[str]:
    """The lines of a chart at most `width` wide; none where there is no point, or no room for a plot.

    Args:
        height: The most rows of the plot, at least 3; the axis and its numbers take two lines more.
        mark: What stands for a value; its interval is the vertical line through it.

    """
    if not points:
        return []
    reached = [number for point in points for number in (point.value, *_ends(point))]
    ticks = round_ticks(min(reached), max(reached), (height - 1) // 2)
    labels = tick_labels(ticks)
    margin = max(map(len, labels))
    overhang = max(len(str(point.labels)) for point in points) // 2
    columns = width - margin - 3 - overhang  # blank, axis, and a blank column before the first point
    if columns < NARROWEST_PLOT:
        return []
    rows_for_each = (height - 1) // (len(ticks) - 1)
    rows = rows_for_each * (len(ticks) - 1) + 1
    places = _columns(points, columns)
    plot = _plot(points, places, ticks, rows, columns, mark, symbols)
    named = {number * rows_for_each: label for number, label in enumerate(labels)}
    lines = [
        f"{named.get(row, ''):>{margin}} {symbols.axis_tick if row in named else symbols.axis} {plot[row]}".rstrip()
        for row in reversed(range(rows))
    ]
    return [*lines, *_base(points, places, columns, margin, symbols)]


def sparkline(values: Sequence[float], symbols: Symbols) -> str:
    """A sign for each value, the lowest for the least and the highest for the greatest; middling where all are equal."""
    # Fractions, since floats overflow between two huge numbers and lose the difference of two tiny ones.
    heights = [Fraction(value) - Fraction(min(values)) for value in values]
    extent = max(heights)
    top = len(symbols.levels) - 1
    return "".join(symbols.levels[round(height / extent * top) if extent else top // 2] for height in heights)


def _ends(point: Point) -> list[float]:
    return [end for end in (point.low, point.high) if end is not None]


def _columns(points: Sequence[Point], columns: int) -> list[int]:
    first, last = min(point.labels for point in points), max(point.labels for point in points)
    if first == last:
        return [0] * len(points)
    ends = [Decimal(first), Decimal(last)]
    return [place(point.labels, ends, columns) for point in points]


def _plot(
    points: Sequence[Point],
    places: Sequence[int],
    ticks: Sequence[Decimal],
    rows: int,
    columns: int,
    mark: str,
    symbols: Symbols,
) -> list[str]:
    """The rows of the plot, lowest first: all intervals, and the values over them."""
    cells = [[" "] * columns for _ in range(rows)]
    for point, column in zip(points, places, strict=True):
        ends = [place(end, ticks, rows) for end in (*_ends(point), point.value)]
        for row in range(min(ends), max(ends) + 1):
            cells[row][column] = symbols.bar
        cells[min(ends)][column], cells[max(ends)][column] = symbols.bar_bottom, symbols.bar_top
    for point, column in zip(points, places, strict=True):
        cells[place(point.value, ticks, rows)][column] = mark
    return ["".join(row) for row in cells]


def _base(points: Sequence[Point], places: Sequence[int], columns: int, margin: int, symbols: Symbols) -> list[str]:
    """The horizontal axis, with a tick and a number below the last point, the first, and others that leave room."""
    shift = margin + 3
    line, numbers = [symbols.base] * columns, [" "] * (shift + 2 * columns)
    order = sorted(zip(places, points, strict=True), key=lambda pair: pair[0])
    for column, point in [order[-1], *order[:-1]]:
        text = str(point.labels)
        start = max(shift + column - len(text) // 2, 0)
        around = numbers[max(start - 1, 0) : start + len(text) + 1]
        if all(cell == " " for cell in around):
            numbers[start : start + len(text)] = text
            line[column] = symbols.base_tick
    return [f"{'':>{margin}} {symbols.corner}{symbols.base}{''.join(line)}", "".join(numbers).rstrip()]
