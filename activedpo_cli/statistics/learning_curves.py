"""Compare curves, of reward against labels spent or against distance gone, over repetitions with different seeds."""

import itertools
import math
from collections.abc import Sequence

from activedpo_cli.statistics.summaries import MeanInterval, Number, mean_interval

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
    import numpy as np  # imported on use: commands that only look at a run do without

    if len(curves) != len(base):
        raise ValueError(f"{len(curves)} curves and {len(base)} of the baseline are no pairs")
    if len(curves) < 3:
        return None
    drawn = np.random.default_rng(seed).multinomial(len(curves), [1 / len(curves)] * len(curves), size=RESAMPLED)
    means = drawn @ np.asarray(curves, dtype=float) / len(curves)
    targets = drawn @ np.asarray([curve[-1] for curve in base], dtype=float) / len(base)
    _check(labels, curves[0])
    reached = means >= targets[:, None]
    after = reached.argmax(axis=1)
    before = np.maximum(after - 1, 0)
    at, each = np.asarray(labels, dtype=float), np.arange(RESAMPLED)
    low, high = means[each, before], means[each, after]
    with np.errstate(divide="ignore", invalid="ignore"):  # the first point has none before it
        between = at[before] + (at[after] - at[before]) * (targets - low) / (high - low)
    found = np.where(after == 0, at[0], between)
    ordered = np.sort(np.where(reached.any(axis=1), found, math.inf)).tolist()
    ends = ordered[int(0.025 * RESAMPLED)], ordered[int(0.975 * RESAMPLED)]
    lowest, highest = (None if math.isinf(end) else end for end in ends)
    return lowest, highest


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


def differences_at_equal(
    distances: Sequence[Number],
    values: Sequence[Number],
    base_distances: Sequence[Number],
    base_values: Sequence[Number],
) -> list[float]:
    """Each value minus the base's at the same distance, for the points that lie within the base's distances.

    The base is read as straight lines between its points in the order of their distances; points of one distance count by
    their mean. Raises ValueError where a path has no points or not a value for each distance.
    """
    base = _by_distance(base_distances, base_values)
    _by_distance(distances, values)
    return [
        value - _read(base, distance)
        for distance, value in zip(distances, values, strict=True)
        if base[0][0] <= distance <= base[-1][0]
    ]


def _check(labels: Sequence[Number], rewards: Curve) -> None:
    if len(labels) != len(rewards) or len(labels) < 2:
        raise ValueError(f"{len(labels)} numbers of labels and {len(rewards)} rewards make no curve")
    if any(after <= before for before, after in itertools.pairwise(labels)):
        raise ValueError("labels must grow along the curve")


def _by_distance(distances: Sequence[Number], values: Sequence[Number]) -> list[tuple[float, float]]:
    if len(distances) != len(values) or not distances:
        raise ValueError(f"{len(distances)} distances and {len(values)} values make no path")
    at: dict[float, list[float]] = {}
    for distance, value in zip(distances, values, strict=True):
        at.setdefault(float(distance), []).append(float(value))
    return [(distance, sum(found) / len(found)) for distance, found in sorted(at.items())]


def _read(path: Sequence[tuple[float, float]], distance: Number) -> float:
    """The value at a distance within the path."""
    before = max((point for point in path if point[0] <= distance), key=lambda point: point[0])
    after = min((point for point in path if point[0] >= distance), key=lambda point: point[0])
    if after[0] == before[0]:
        return before[1]
    return before[1] + (after[1] - before[1]) * (distance - before[0]) / (after[0] - before[0])
