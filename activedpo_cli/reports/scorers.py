"""Who scored, and which evaluations may stand on one pair of axes."""

from collections.abc import Sequence
from typing import Literal

from activedpo_cli.reports.evaluation_data import Evaluation, Scorer
from activedpo_cli.reports.run_data import RunData
from activedpo_cli.store.manifest import digest_of

Role = Literal["", "second_"]
"""The first scorer or the second one, as the prefix of its metrics."""

ROLES: tuple[Role, ...] = ("", "second_")
LONGEST_NAME = 44


def scorers(runs: Sequence[RunData], role: Role) -> list[Scorer]:
    """Everyone who scored in a role, in the order of their appearance."""
    found = [_scorer(row, role) for run in runs for row in run.evaluations if _was_scored(row, role)]
    return list(dict.fromkeys(scorer for scorer in found if scorer))


def scored(run: RunData, role: Role, scorer: Scorer) -> list[Evaluation]:
    """The evaluations by a scorer; the initial model's only where its mean is the one that they compare with."""
    rows = [row for row in run.evaluations if _scorer(row, role) == scorer and _was_scored(row, role)]
    compared = {row.metrics[f"{role}reward_mean_initial"] for row in rows if row.iteration}
    return [row for row in rows if row.iteration or not compared or row.metrics[f"{role}reward_mean"] in compared]


def titles(found: Sequence[Scorer]) -> list[tuple[Scorer, str]]:
    """A title for each scorer; scorers of one name are told apart by the first digits of their content."""
    names = [scorer.name for scorer in found]
    return [
        (scorer, f"by {_short(scorer.name)}" + (f" ({_digits(scorer)})" if names.count(scorer.name) > 1 else ""))
        for scorer in found
    ]


def _was_scored(row: Evaluation, role: Role) -> bool:
    return row.metrics.get(f"{role}reward_mean") is not None


def _scorer(row: Evaluation, role: Role) -> Scorer | None:
    return row.second_scorer if role else row.scorer


def _digits(scorer: Scorer) -> str:
    return digest_of(scorer.digests).removeprefix("sha256:")[:8]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]
