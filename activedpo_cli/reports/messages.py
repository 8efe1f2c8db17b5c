"""The heading of each figure: what its numbers say in a sentence, and never more than their intervals support.

A figure about several runs says how many of them show a thing; where that would be a comparison of runs, which their
intervals do not make, it has no message and keeps its title.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from activedpo_cli.reports.gains import Gain, gains_of, last_evaluation
from activedpo_cli.reports.run_data import Batch, Evaluation, Labels, RunData
from activedpo_cli.reports.wording import number, share, share_with_interval, signed, with_interval
from activedpo_cli.statistics.summaries import FiveNumbers, MeanInterval

HALF = 0.5
Found = TypeVar("Found")


def reward_message(runs: Sequence[RunData]) -> str:
    """Whether reward rose, by each scorer of one run, or in how many of several by the first scorer."""
    gains = [found for run in runs if (found := gains_of(run))]
    if not gains:
        return ""
    if len(runs) == 1:
        first, *others = gains[0]
        more = [f"; {signed(gain.reward)} by {gain.scorer}" for gain in others]
        return "".join([_change_of(first), *more])
    return _counted([found[0].change for found in gains], "better", "Reward rose", "worse", "fell")


def _change_of(gain: Gain) -> str:
    mean, low, high = gain.reward
    if gain.change == "better":
        return f"Reward rose by {with_interval(mean, low, high)}"
    if gain.change == "worse" and low is not None and high is not None:
        return f"Reward fell by {with_interval(-mean, -high, -low)}"
    if gain.change == "no interval":
        return f"Reward changed by {signed(gain.reward)}"
    return f"No change of reward is told: {signed(gain.reward)}"


def win_rate_message(runs: Sequence[RunData]) -> str:
    """Whether the last policy wins more than half of the comparisons, of several runs by the first scorer."""
    found = [[(gain.scorer, gain.win_rate) for gain in gains_of(run) if gain.win_rate] for run in runs]
    rates = [row for row in found if row]
    if not rates:
        return ""
    if len(runs) == 1:
        (_, first), *others = rates[0]
        more = [f"; {share_with_interval(*rate)} by {scorer}" for scorer, rate in others]
        return "".join([_against_half(first, "of comparisons won"), *more])
    sides = [_side(row[0][1]) for row in rates]
    return _counted(sides, "more", "More than half of comparisons won", "fewer", "fewer")


def accuracy_message(runs: Sequence[RunData]) -> str:
    """Whether more than half of held-out preferences are ordered rightly, of a single run."""
    last = _only(runs, last_evaluation)
    if last is None or last.metrics.get("preference_accuracy") is None:
        return ""
    rate, low, high = (last.metrics.get(f"preference_accuracy{part}") for part in ("", "_ci_low", "_ci_high"))
    return _against_half(MeanInterval(rate or 0.0, low, high), "of held-out preferences ordered rightly")


def distance_message(runs: Sequence[RunData]) -> str:
    """How far the last policy of a single run is from the initial model."""
    last = _only(runs, last_evaluation)
    if last is None or last.metrics.get("kl_to_reference") is None:
        return ""
    metrics = last.metrics
    kl = with_interval(metrics["kl_to_reference"], metrics.get("kl_ci_low"), metrics.get("kl_ci_high"), 2)
    return f"{kl} nats from the initial model{_tokens(last)}"


def _tokens(last: Evaluation) -> str:
    now, first = (last.metrics.get(f"response_tokens_mean{when}") for when in ("", "_initial"))
    if now is None or first is None:
        return ""
    return f", with responses of {number(now, 1)} tokens after {number(first, 1)}"


def score_message(runs: Sequence[RunData]) -> str:
    """How far the score falls within the last batch of a single run."""
    batch = _only(runs, _last_batch)
    if batch is None or not batch.scores:
        return ""
    return f"Within iteration {batch.iteration} the score goes from {number(batch.scores[0])} to {number(batch.scores[-1])}"


def similarity_message(runs: Sequence[RunData]) -> str:
    """How like each other picked pairs and candidates are, in the last batch of a single run."""
    batch = _only(runs, _last_batch)
    geometry = batch and batch.geometry
    if not geometry or not geometry.picked_cosines or not geometry.pool_cosines:
        return ""
    return _medians("Median likeness", geometry.picked_cosines, geometry.pool_cosines, 3)


def rank_message(runs: Sequence[RunData]) -> str:
    """How many directions the labelled pairs of a single run cover."""
    batch = _only(runs, _last_batch)
    if batch is None or batch.geometry is None:
        return ""
    found = batch.geometry
    ranks = number(found.effective_rank, 1), number(found.random_effective_rank, 1)
    return f"{found.labelled_pairs} labelled pairs cover {ranks[0]} directions; {ranks[1]} with a random last batch"


def length_message(runs: Sequence[RunData]) -> str:
    """How long picked responses are, beside the candidates."""
    batch = _only(runs, _last_batch)
    if batch is None or batch.picked_tokens is None or batch.pool_tokens is None:
        return ""
    return _medians("Median tokens", batch.picked_tokens, batch.pool_tokens, 1)


def gap_message(runs: Sequence[RunData]) -> str:
    """How clear the answers were in the first and last iteration of a single run."""
    gaps = [row.gaps.median for row in runs[0].labels if row.gaps] if len(runs) == 1 else []
    if not gaps:
        return ""
    return f"Median score gap {number(gaps[-1], 2)}" + (
        f" after {number(gaps[0], 2)} at first" if len(gaps) > 1 else ""
    )


def longer_won_message(runs: Sequence[RunData]) -> str:
    """Whether the labels of the last iteration prefer length."""
    labels = _only(runs, _last_labels)
    if labels is None or labels.longer_won is None:
        return ""
    return _against_half(labels.longer_won, f"of labels of iteration {labels.iteration} for the longer response")


def seconds_message(runs: Sequence[RunData]) -> str:
    """How long people took for a label."""
    labels = _only(runs, _last_labels)
    if labels is None or labels.seconds is None:
        return ""
    return f"Median {number(labels.seconds.median, 1)} s a label in iteration {labels.iteration}"


def training_message(runs: Sequence[RunData], column: str) -> str:
    """Where the loss of a single run begins and ends."""
    found = [
        value for run in runs for row in run.trainings for value in row.columns.get(column, []) if value is not None
    ]
    if len(runs) != 1 or len(found) < 2:
        return ""
    return f"DPO loss {number(found[0])} at the first update, {number(found[-1])} at the last"


def cost_message(runs: Sequence[RunData]) -> str:
    """Which stage takes most of the time of a single run."""
    seconds: dict[str, float] = {}
    for fact in runs[0].stages if len(runs) == 1 else []:
        if fact.iteration and fact.seconds is not None:
            seconds[fact.stage] = seconds.get(fact.stage, 0.0) + fact.seconds
    total = sum(seconds.values())
    if not total:
        return ""
    most = max(seconds, key=lambda stage: seconds[stage])
    return f"Of {number(total, 1)} s {share(seconds[most] / total)} went into {most}"


def _against_half(rate: MeanInterval, what: str) -> str:
    told = {"more": "more than half", "fewer": "fewer than half", "": "not told from half"}[_side(rate)]
    return f"{share_with_interval(*rate)} {what}: {told}"


def _side(rate: MeanInterval) -> str:
    if rate.low is None or rate.high is None:
        return ""
    return "more" if rate.low > HALF else "fewer" if rate.high < HALF else ""


def _counted(kinds: Sequence[str], good: str, what: str, bad: str, opposite: str) -> str:
    """`Reward rose in 2 of 4 runs, fell in 1, as their intervals tell`; of the others nothing is told."""
    lost = f", {opposite} in {kinds.count(bad)}" if bad in kinds else ""
    return f"{what} in {kinds.count(good)} of {len(kinds)} runs{lost}, as their intervals tell"


def _medians(what: str, picked: FiveNumbers, pool: FiveNumbers, digits: int) -> str:
    return f"{what} {number(picked.median, digits)} of picked pairs, {number(pool.median, digits)} of candidates"


def _last_batch(run: RunData) -> Batch | None:
    return run.batches[-1] if run.batches else None


def _last_labels(run: RunData) -> Labels | None:
    return run.labels[-1] if run.labels else None


def _only(runs: Sequence[RunData], find: Callable[[RunData], Found | None]) -> Found | None:
    """What is found in a run that is alone on the page."""
    return find(runs[0]) if len(runs) == 1 else None
