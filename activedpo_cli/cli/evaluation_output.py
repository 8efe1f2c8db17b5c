"""Prints evaluations: the cells of their table, and a chart of the reward against the labels it cost."""

import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from activedpo_cli.base.numbers import shown
from activedpo_cli.cli.drawing import Point, Symbols, draw_chart, symbols_for
from activedpo_cli.cli.render import one_line, print_result, print_table

PIPE_WIDTH = 80
WIDEST_CHART = 100
COLUMNS = (
    "iteration",
    "labels",
    "reward",
    "95 % interval",
    "win rate",
    "second reward",
    "second win rate",
    "KL",
    "tokens",
    "preference accuracy",
)


def comparable(rows: Sequence[Mapping[str, Any]], prefix: str = "") -> list[Mapping[str, Any]]:
    """The evaluations whose rewards have the unit of the newest: those by its scorer, whom iteration 0 is scored by too."""
    names = [row.get(f"{prefix}scorer") for row in rows if row.get(f"{prefix}scorer")]
    return [row for row in rows if row.get(f"{prefix}scorer") in (None, *names[-1:])]


def evaluation_cells(metrics: Mapping[str, Any], symbols: Symbols) -> dict[str, str]:
    """The cell of every column; a dash where nothing was measured, as for the initial model's win rate over itself."""
    low, high = metrics.get("reward_ci_low"), metrics.get("reward_ci_high")
    is_initial = metrics["iteration"] == 0
    cells = (
        str(metrics["iteration"]),
        str(metrics["labels_spent"]),
        _number(metrics.get("reward_mean")),
        None if low is None or high is None else f"{shown(low, 3, high)} {symbols.to} {shown(high, 3, low)}",
        None if is_initial else _percent(metrics.get("win_rate")),
        _number(metrics.get("second_reward_mean")),
        None if is_initial else _percent(metrics.get("second_win_rate")),
        _number(metrics.get("kl_to_reference")),
        _number(metrics.get("response_tokens_mean"), 1),
        _percent(metrics.get("preference_accuracy")),
    )
    return {name: symbols.nothing if cell is None else cell for name, cell in zip(COLUMNS, cells, strict=True)}


def measured_columns(rows: list[dict[str, str]], symbols: Symbols) -> list[str]:
    """The columns in which anything was measured."""
    return [name for name in COLUMNS if any(row[name] != symbols.nothing for row in rows)]


def print_evaluations(rows: list[dict[str, Any]]) -> None:
    """A table of evaluations, iteration 0 being the initial model, without the columns in which nothing was measured."""
    symbols = symbols_for(sys.stdout)
    cells = [evaluation_cells(row, symbols) for row in rows]
    columns = measured_columns(cells, symbols)
    print_table(columns, [[row[name] for name in columns] for row in cells])


def print_charts(rows: list[dict[str, Any]]) -> None:
    """The mean reward against the labels it cost; the second scorer has a unit, and so a chart, of its own."""
    symbols, width = symbols_for(sys.stdout), _width()
    for prefix, mark in (("", symbols.point), ("second_", symbols.second_point)):
        points = _points(comparable(rows, prefix), prefix)
        lines = draw_chart(points, width=width, mark=mark, symbols=symbols)
        if lines:
            print_result("\n" + "\n".join([_title(rows, prefix, mark, symbols, width), *lines]))
            left_out = len(_points(rows, prefix)) - len(points)
            if left_out:
                print_result(f"{left_out} evaluation{'s' * (left_out > 1)} by another scorer not drawn: no common unit")


def _points(rows: Sequence[Mapping[str, Any]], prefix: str) -> list[Point]:
    return [
        Point(
            labels=row["labels_spent"],
            value=row[f"{prefix}reward_mean"],
            low=finite(row.get(f"{prefix}reward_ci_low")),
            high=finite(row.get(f"{prefix}reward_ci_high")),
        )
        for row in rows
        if finite(row.get(f"{prefix}reward_mean")) is not None
    ]


def finite(value: float | None) -> float | None:
    """The number, None where there is none or it is not finite."""
    return value if value is not None and math.isfinite(value) else None


def _title(rows: list[dict[str, Any]], prefix: str, mark: str, symbols: Symbols, width: int) -> str:
    """What is drawn; the scorer is the newest one, by whom iteration 0 is scored too."""
    names = [one_line(row[f"{prefix}scorer"]) for row in rows if row.get(f"{prefix}scorer")]
    by = f"; scorer {names[-1]}" if names else ""
    title = f"{mark} {prefix.replace('_', ' ')}reward by labels, mean and 95 % interval{by}"
    return title if len(title) <= width else title[: width - len(symbols.to)] + symbols.to


def _width() -> int:
    """Of stdout's terminal; a fixed one elsewhere, so that what is kept does not depend on who looked."""
    return min(shutil.get_terminal_size().columns, WIDEST_CHART) if sys.stdout.isatty() else PIPE_WIDTH


def _number(value: float | None, digits: int = 3) -> str | None:
    return None if value is None else shown(value, digits)


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{shown(100 * value, 1)} %"
