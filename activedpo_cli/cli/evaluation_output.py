"""Evaluations as they are printed: a table, and a chart of the reward against the labels it cost."""

import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from activedpo_cli.cli.chart import Point, draw_chart
from activedpo_cli.cli.evaluation_cells import comparable, evaluation_cells, measured_columns
from activedpo_cli.cli.live_layout import one_line
from activedpo_cli.cli.render import print_result, print_table
from activedpo_cli.cli.symbols import Symbols, symbols_for

PIPE_WIDTH = 80
WIDEST_CHART = 100
AXIS_TITLE = "labels spent"


def print_evaluations(rows: list[dict[str, Any]]) -> None:
    """A table of evaluations, iteration 0 being the initial model, without the columns in which nothing was measured."""
    symbols = symbols_for(sys.stdout)
    cells = [evaluation_cells(row, symbols) for row in rows]
    columns = measured_columns(cells, symbols)
    print_table(columns, [[row[name] for name in columns] for row in cells])


def print_charts(rows: list[dict[str, Any]]) -> None:
    """The mean reward against the labels it cost; the second scorer has a unit, and so a chart, of its own."""
    symbols, width = symbols_for(sys.stdout), _width()
    for prefix, mark, height in (("", symbols.point, 13), ("second_", symbols.second_point, 7)):
        points = _points(comparable(rows, prefix), prefix)
        lines = draw_chart(points, width=width, height=height, mark=mark, symbols=symbols)
        if lines:
            print_result("\n" + "\n".join([_title(rows, prefix, mark, symbols, width), *lines]))
            print_result(f"{AXIS_TITLE:^{max(map(len, lines))}}".rstrip())
            left_out = len(_points(rows, prefix)) - len(points)
            if left_out:
                print_result(f"{left_out} evaluation{'s' * (left_out > 1)} by another scorer not drawn: no common unit")


def _points(rows: Sequence[Mapping[str, Any]], prefix: str) -> list[Point]:
    return [
        Point(
            labels=row["labels_spent"],
            value=row[f"{prefix}reward_mean"],
            low=_finite(row.get(f"{prefix}reward_ci_low")),
            high=_finite(row.get(f"{prefix}reward_ci_high")),
        )
        for row in rows
        if _finite(row.get(f"{prefix}reward_mean")) is not None
    ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _title(rows: list[dict[str, Any]], prefix: str, mark: str, symbols: Symbols, width: int) -> str:
    """What is drawn; the scorer is the newest one, by whom iteration 0 is scored too."""
    names = [one_line(row[f"{prefix}scorer"]) for row in rows if row.get(f"{prefix}scorer")]
    by = f"; scorer {names[-1]}" if names else ""
    title = f"{mark} {prefix.replace('_', ' ')}reward, mean and 95 % interval ({symbols.bar}){by}"
    return title if len(title) <= width else title[: width - len(symbols.to)] + symbols.to


def _width() -> int:
    """Of stdout's terminal; a fixed one elsewhere, so that what is kept does not depend on who looked."""
    return min(shutil.get_terminal_size().columns, WIDEST_CHART) if sys.stdout.isatty() else PIPE_WIDTH
