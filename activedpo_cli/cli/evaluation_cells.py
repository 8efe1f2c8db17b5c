"""An evaluation as the words of a table; the tables of results and the live view share them."""

from collections.abc import Mapping, Sequence
from typing import Any

from activedpo_cli.cli.symbols import Symbols

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
        None if low is None else f"{low:.3f} {symbols.to} {high:.3f}",
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


def _number(value: float | None, digits: int = 3) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f} %"
