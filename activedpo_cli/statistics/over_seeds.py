"""Runs that differ in the seed alone, taken together: the curve of one measure over labels for each seed, and comparisons.

The observations are the seeds. Two groups of runs are compared at the seeds that both have, point by point.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from activedpo_cli.statistics.learning_curves import (
    area_under_curve,
    labels_to_reach,
    labels_to_reach_range,
    mean_curve,
    paired_differences,
)
from activedpo_cli.statistics.summaries import MeanInterval, Number


@dataclass(frozen=True, kw_only=True)
class SeedCurves:
    """One measure at the same numbers of labels for every seed.

    Attributes:
        labels: Labels spent at each point, growing.
        values: By seed, in ascending order, the value at each point.

    """

    labels: Sequence[Number]
    values: Mapping[int, Sequence[Number]]

    def mean(self) -> list[MeanInterval]:
        """At each point the mean over seeds with its 95 % Student-t interval."""
        return mean_curve(list(self.values.values()))

    def heights(self) -> dict[int, float]:
        """The mean height of each seed's curve; a single point is its own height."""
        return {
            seed: area_under_curve(self.labels, curve) if len(curve) > 1 else float(curve[0])
            for seed, curve in self.values.items()
        }

    def at(self, labels: Sequence[Number]) -> "SeedCurves":
        """All seeds at some of the numbers of labels."""
        places = [self.labels.index(spent) for spent in labels]
        values = {seed: [curve[place] for place in places] for seed, curve in self.values.items()}
        return SeedCurves(labels=list(labels), values=values)


def of_shared_seeds(first: SeedCurves, second: SeedCurves) -> tuple[SeedCurves, SeedCurves]:
    """Both with the seeds that both have."""
    seeds = [seed for seed in first.values if seed in second.values]
    ours, theirs = (
        SeedCurves(labels=curves.labels, values={seed: curves.values[seed] for seed in seeds})
        for curves in (first, second)
    )
    return ours, theirs


def at_shared_labels(curves: Sequence[SeedCurves]) -> list[SeedCurves]:
    """All of them at the numbers of labels that all of them have."""
    labels = sorted(set.intersection(*(set(row.labels) for row in curves)))
    return [row.at(labels) for row in curves]


def differences(first: SeedCurves, second: SeedCurves) -> list[MeanInterval]:
    """At each point the mean of first − second over shared seeds, of which there has to be one, with its 95 % interval."""
    ours, theirs = of_shared_seeds(first, second)
    return paired_differences(list(ours.values.values()), list(theirs.values.values()))


def height_differences(first: SeedCurves, second: SeedCurves) -> list[float]:
    """For each shared seed how much higher the first curve is on average."""
    ours, theirs = of_shared_seeds(first, second)
    return [a - b for a, b in zip(ours.heights().values(), theirs.heights().values(), strict=True)]


def labels_to_end_of(curves: SeedCurves, base: SeedCurves) -> Number | None:
    """The fewest labels at which the mean curve reaches the last mean of the base, both over shared seeds.

    None where it never does, for a single point, and without a shared seed.
    """
    ours, theirs = of_shared_seeds(curves, base)
    if len(curves.labels) < 2 or not ours.values:
        return None
    target = fmean(curve[-1] for curve in theirs.values.values())
    return labels_to_reach(curves.labels, [point.mean for point in ours.mean()], target)


def labels_to_end_range(curves: SeedCurves, base: SeedCurves) -> tuple[Number | None, Number | None] | None:
    """The 95 % bootstrap range of `labels_to_end_of` over seeds; None where that is, and for fewer than three seeds."""
    if labels_to_end_of(curves, base) is None:
        return None
    ours, theirs = of_shared_seeds(curves, base)
    return labels_to_reach_range(curves.labels, list(ours.values.values()), list(theirs.values.values()))
