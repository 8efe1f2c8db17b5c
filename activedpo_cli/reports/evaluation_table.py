"""Every evaluation of some runs as a table."""

from collections.abc import Sequence

from activedpo_cli.reports.evaluation_data import Evaluation
from activedpo_cli.reports.run_data import RunData
from activedpo_cli.reports.section import Table, table
from activedpo_cli.reports.wording import number, share, share_with_interval, with_interval

FIRST = [
    "run",
    "iteration",
    "labels",
    "reward",
    "gain",
    "win rate",
    "KL (nats)",
    "tokens",
    "cut off",
    "preference accuracy",
]
SECOND = ["run", "iteration", "labels", "second reward", "second gain", "second win rate"]


def evaluation_tables(runs: Sequence[RunData]) -> list[Table]:
    """A row for each evaluation, iteration 0 being the initial model; a second table where a second scorer stood by."""
    rows = [(run, row) for run in runs for row in run.evaluations]
    first = table("Every evaluation, with 95 % intervals over prompts", FIRST, [_cells(run, row) for run, row in rows])
    scored = [(run, row) for run, row in rows if row.metrics.get("second_reward_mean") is not None]
    cells = [[*_place(run, row), *_rewards(row, "second_")] for run, row in scored]
    return [first, table("The same by the second scorer", SECOND, cells)] if scored else [first]


def _cells(run: RunData, row: Evaluation) -> list[str]:
    metrics = row.metrics
    return [
        *_place(run, row),
        *_rewards(row, ""),
        with_interval(metrics.get("kl_to_reference"), metrics.get("kl_ci_low"), metrics.get("kl_ci_high"), 2),
        number(metrics.get("response_tokens_mean"), 1),
        share(metrics.get("truncated_share")),
        share_with_interval(*_with_ends(row, "preference_accuracy")),
    ]


def _place(run: RunData, row: Evaluation) -> list[str]:
    return [run.name, str(row.iteration), str(row.labels_spent)]


def _rewards(row: Evaluation, role: str) -> list[str]:
    """Reward, gain and win rate; the initial model has the latter two by definition, so they are not shown."""
    low, high = row.metrics.get(f"{role}reward_ci_low"), row.metrics.get(f"{role}reward_ci_high")
    reward = with_interval(row.metrics.get(f"{role}reward_mean"), low, high)
    if row.iteration == 0:
        return [reward, "", ""]
    gain = with_interval(*_with_ends(row, f"{role}reward_gain"))
    return [reward, gain, share_with_interval(*_with_ends(row, f"{role}win_rate"))]


def _with_ends(row: Evaluation, field: str) -> tuple[float | None, float | None, float | None]:
    metrics = row.metrics
    return metrics.get(field), metrics.get(f"{field}_ci_low"), metrics.get(f"{field}_ci_high")
