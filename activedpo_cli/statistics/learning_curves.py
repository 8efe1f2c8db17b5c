"""Compare curves of reward against labels spent, over repetitions with different seeds."""

import itertools
import math
from collections.abc import Sequence

from activedpo_cli.statistics.statistics import MeanInterval, Number, mean_interval

Curve = Sequence[Number]
"""Rewards at the same numbers of labels for all curves that are compared."""

RESAMPLED = 2000


def area_under_curve(labels: Sequence[Number], rewards: Curve) -> float:
    """Mean reward over the labels spent: the trapezoidal area divided by the width, in the reward's own unit.

    Raises ValueError where there are not two points or labels do not grow.
    """
    _check(labels, rewards)
    steps = zip(labels, labels[1:], rewards, rewards[1:], strict=False)
    return sum((after - before) * (low + high) / 2 for before, after, low, high in steps) / (labels[-1] - labels[0])


def labels_to_reach(labels: Sequence[Number], rewards: Curve, target: Number) -> Number | None:
    """The fewest labels at which the curve, straight between its points, is at `target` or above; None where it never is."""
    _check(labels, rewards)
    if rewards[0] >= target:
        return labels[0]
    for before, after, low, high in zip(labels, labels[1:], rewards, rewards[1:], strict=False):
        if high >= target:
            return before + (after - before) * (target - low) / (high - low)
    return None


def labels_to_reach_range(
    labels: Sequence[Number], curves: Sequence[Curve], base: Sequence[Curve], seed: int = 0
) -> tuple[Number | None, Number | None] | None:
    """95 % bootstrap range of the labels at which the mean of `curves` reaches the last mean of `base`.

    Both have a curve for each seed, in the same order; seeds are drawn with replacement, for both alike, so the target
    moves with them. An end is None where the target is not reached; the whole is None for fewer than three seeds. With few
    seeds such a range is too narrow (percentiles; Efron and Tibshirani 1993, chapter 13).
    """
    import numpy as np  # here, since commands that only look need no numbers

    if len(curves) != len(base):
        raise ValueError(f"{len(curves)} curves and {len(base)} of the baseline are no pairs")
    if len(curves) < 3:
        return None
    drawn = np.random.default_rng(seed).multinomial(len(curves), [1 / len(curves)] * len(curves), size=RESAMPLED)
    means = (drawn @ np.asarray(curves, dtype=float) / len(curves)).tolist()
    targets = (drawn @ np.asarray([curve[-1] for curve in base], dtype=float) / len(base)).tolist()
    found = [labels_to_reach(labels, mean, target) for mean, target in zip(means, targets, strict=True)]
    ordered = sorted(math.inf if value is None else value for value in found)
    ends = ordered[int(0.025 * RESAMPLED)], ordered[int(0.975 * RESAMPLED)]
    low, high = (None if math.isinf(end) else end for end in ends)
    return low, high


def mean_curve(curves: Sequence[Curve]) -> list[MeanInterval]:
    """At each point the mean over the curves with its 95 % Student-t interval; the observations are the curves (seeds)."""
    return [mean_interval(values) for values in zip(*curves, strict=True)]


def paired_differences(first: Sequence[Curve], second: Sequence[Curve]) -> list[MeanInterval]:
    """At each point the mean of first − second over pairs of curves (of the same seed), with its 95 % interval.

    The interval holds for each point on its own; nothing is corrected for looking at several.
    """
    return mean_curve(
        [[a - b for a, b in zip(one, other, strict=True)] for one, other in zip(first, second, strict=True)]
    )


def _check(labels: Sequence[Number], rewards: Curve) -> None:
    if len(labels) != len(rewards) or len(labels) < 2:
        raise ValueError(f"{len(labels)} numbers of labels and {len(rewards)} rewards make no curve")
    if any(after <= before for before, after in itertools.pairwise(labels)):
        raise ValueError("labels must grow along the curve")
