"""What `run` prints when all is done: the evaluations, iteration by iteration."""

from typing import Any

from activedpo_cli.artifacts.run import Run
from activedpo_cli.cli.render import print_json, print_result, print_table
from activedpo_cli.stages.status import evaluations

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
NOTHING = "\N{EN DASH}"


def print_loop(run: Run, *, json: bool) -> None:
    """A row per evaluation, iteration 0 being the initial model, and the folder of the run."""
    rows = evaluations(run)
    if json:
        print_json({"run": str(run.path), "evaluations": rows})
        return
    print_evaluations(rows)
    print_result(str(run.path))


def print_evaluations(rows: list[dict[str, Any]]) -> None:
    """A table of evaluations, without the columns in which nothing was measured."""
    cells = [_row(row) for row in rows]
    kept = [place for place in range(len(COLUMNS)) if any(row[place] != NOTHING for row in cells)]
    print_table([COLUMNS[place] for place in kept], [[row[place] for place in kept] for row in cells])


def _row(metrics: dict[str, Any]) -> list[str]:
    low, high = metrics.get("reward_ci_low"), metrics.get("reward_ci_high")
    return [
        str(metrics["iteration"]),
        str(metrics["labels_spent"]),
        _number(metrics.get("reward_mean")),
        NOTHING if low is None else f"{low:.3f} … {high:.3f}",
        _percent(metrics.get("win_rate")) if metrics["iteration"] else NOTHING,
        _number(metrics.get("second_reward_mean")),
        _percent(metrics.get("second_win_rate")) if metrics["iteration"] else NOTHING,
        _number(metrics.get("kl_to_reference")),
        _number(metrics.get("response_tokens_mean"), 1),
        _percent(metrics.get("preference_accuracy")),
    ]


def _number(value: float | None, digits: int = 3) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f} %"
