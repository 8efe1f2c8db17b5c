"""What `run` prints when all is done: the evaluations, iteration by iteration."""

from typing import Any

from activedpo_cli.artifacts.run import Run
from activedpo_cli.cli.render import print_json, print_result, print_table
from activedpo_cli.stages.status import evaluations

COLUMNS = ["iteration", "labels", "reward", "95 % interval", "win rate", "KL", "tokens", "preference accuracy"]


def print_loop(run: Run, *, json: bool) -> None:
    """A row per evaluation, iteration 0 being the initial model, and the folder of the run."""
    rows = evaluations(run)
    if json:
        print_json({"run": str(run.path), "evaluations": rows})
        return
    print_table(COLUMNS, [evaluation_row(row) for row in rows])
    print_result(str(run.path))


def evaluation_row(metrics: dict[str, Any]) -> list[str]:
    """One evaluation as the cells of `COLUMNS`."""
    low, high = metrics.get("reward_ci_low"), metrics.get("reward_ci_high")
    return [
        str(metrics["iteration"]),
        str(metrics["labels_spent"]),
        _number(metrics.get("reward_mean")),
        "–" if low is None else f"{low:.3f} … {high:.3f}",
        _percent(metrics.get("win_rate")) if metrics["iteration"] else "–",
        _number(metrics.get("kl_to_reference")),
        _number(metrics.get("response_tokens_mean"), 1),
        _percent(metrics.get("preference_accuracy")),
    ]


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
