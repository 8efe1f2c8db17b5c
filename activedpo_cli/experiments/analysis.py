"""What the rows of an experiment say: curves over labels, their height, and paired differences to the baseline."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from activedpo_cli.experiments.results import ResultRow
from activedpo_cli.statistics.learning_curves import (
    area_under_curve,
    labels_to_reach,
    labels_to_reach_range,
    mean_curve,
    paired_differences,
)
from activedpo_cli.statistics.multiple_comparisons import holm, share_of_the_way, sign_flip_p_value
from activedpo_cli.statistics.summaries import MeanInterval, mean_interval

REWARD, SECOND_REWARD = "reward_mean", "second_reward_mean"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An arm minus the baseline at equal seeds: mean with its 95 % interval, and p by sign flips, as is and by Holm.

    A ceiling is no hypothesis: it has no adjusted p, and is not counted for those of the others.
    """

    interval: MeanInterval
    p_value: float
    adjusted: float | None


@dataclass(frozen=True, kw_only=True)
class ArmCurve:
    """One arm's values of one measure over the labels spent.

    Attributes:
        seeds: The seeds, ascending.
        labels: Labels spent at each evaluation, averaged over seeds.
        curves: For each seed its values.
        mean: At each evaluation the mean over seeds with its 95 % interval.
        height: Mean height of the curve (area under it by its width) over seeds.
        height_difference: Height minus that of the baseline; None for the baseline, or with fewer than two seeds in common.
        differences: The same at each evaluation.
        labels_to_target: Labels at which the mean curve reaches the baseline's last mean, over the seeds of both; None where
            it does not.
        labels_to_target_range: Their 95 % bootstrap range over seeds; None with few seeds, for the baseline, or where the
            target is not reached; an end is None where it is not reached there.
        share: How far of the way from the baseline to the ceiling the height gets.

    """

    arm: str
    seeds: list[int]
    labels: list[float]
    curves: list[list[float]]
    mean: list[MeanInterval]
    height: MeanInterval
    height_difference: Difference | None
    differences: list[MeanInterval] | None
    labels_to_target: float | None
    labels_to_target_range: tuple[float | None, float | None] | None
    share: MeanInterval | None


def arms_in(rows: Sequence[ResultRow]) -> list[str]:
    """The arms in the order of their first rows."""
    return list(dict.fromkeys(row.arm for row in rows))


def measured(rows: Sequence[ResultRow], measure: str) -> bool:
    """Whether all rows have the measure."""
    return bool(rows) and all(row.measures[measure] is not None for row in rows)


def analyse(
    rows: Sequence[ResultRow], measure: str, baselines: Mapping[str, str], ceilings: Mapping[str, str]
) -> list[ArmCurve]:
    """The curve of every arm in one measure, compared at equal seeds.

    Args:
        rows: All evaluations.
        measure: Which of their numbers.
        baselines: For each arm the one that it is compared with.
        ceilings: For each arm the one that reads the answers.

    """
    by_arm = {arm: _curves(rows, arm, measure) for arm in arms_in(rows)}
    labels = {arm: _labels(rows, arm) for arm in by_arm}
    heights = {arm: _heights(labels[arm], curves) for arm, curves in by_arm.items()}
    differences = _height_differences(heights, baselines, set(ceilings.values()))
    return [
        ArmCurve(
            arm=arm,
            seeds=list(curves),
            labels=labels[arm],
            curves=list(curves.values()),
            mean=mean_curve(list(curves.values())),
            height=mean_interval(list(heights[arm].values())),
            height_difference=differences.get(arm),
            differences=_differences(curves, by_arm[baselines[arm]]) if arm in differences else None,
            labels_to_target=_labels_to_target(labels[arm], curves, by_arm.get(baselines.get(arm, ""))),
            labels_to_target_range=_target_range(labels[arm], curves, by_arm.get(baselines.get(arm, arm))),
            share=_share(heights, arm, baselines.get(arm), ceilings.get(arm)),
        )
        for arm, curves in by_arm.items()
    ]


def _curves(rows: Sequence[ResultRow], arm: str, measure: str) -> dict[int, list[float]]:
    found: dict[int, dict[int, float]] = {}
    for row in rows:
        value = row.measures[measure]
        if row.arm == arm and value is not None:
            found.setdefault(row.seed, {})[row.iteration] = value
    longest = max((len(values) for values in found.values()), default=0)
    return {
        seed: [values[iteration] for iteration in sorted(values)]
        for seed, values in sorted(found.items())
        if len(values) == longest
    }


def _labels(rows: Sequence[ResultRow], arm: str) -> list[float]:
    found: dict[int, list[float]] = {}
    for row in rows:
        spent = row.measures["labels_spent"]
        if row.arm == arm and spent is not None:
            found.setdefault(row.iteration, []).append(spent)
    return [fmean(found[iteration]) for iteration in sorted(found)]


def _heights(labels: Sequence[float], curves: dict[int, list[float]]) -> dict[int, float]:
    """A single evaluation is its own height."""
    return {seed: area_under_curve(labels, curve) if len(curve) > 1 else curve[0] for seed, curve in curves.items()}


def _labels_to_target(
    labels: Sequence[float], curves: Mapping[int, list[float]], base: Mapping[int, list[float]] | None
) -> float | None:
    if not base or len(labels) < 2:
        return None
    shared = [seed for seed in curves if seed in base]
    if not shared:
        return None
    target = fmean(base[seed][-1] for seed in shared)
    return labels_to_reach(labels, [point.mean for point in mean_curve([curves[seed] for seed in shared])], target)


def _target_range(
    labels: Sequence[float], curves: Mapping[int, list[float]], base: Mapping[int, list[float]] | None
) -> tuple[float | None, float | None] | None:
    if not base or base is curves or _labels_to_target(labels, curves, base) is None:
        return None
    shared = [seed for seed in curves if seed in base]
    return labels_to_reach_range(labels, [curves[seed] for seed in shared], [base[seed] for seed in shared])


def tested(values_by_arm: Mapping[str, Sequence[float]], ceilings: Collection[str]) -> dict[str, Difference]:
    """The mean of each arm's differences at equal seeds with its test; Holm's correction is over all but the ceilings."""
    p_values = {arm: sign_flip_p_value(values) for arm, values in values_by_arm.items()}
    corrected = [arm for arm in values_by_arm if arm not in ceilings]
    adjusted = dict(zip(corrected, holm([p_values[arm] for arm in corrected]), strict=True))
    return {
        arm: Difference(interval=mean_interval(values), p_value=p_values[arm], adjusted=adjusted.get(arm))
        for arm, values in values_by_arm.items()
    }


def _height_differences(
    heights: Mapping[str, Mapping[int, float]], baselines: Mapping[str, str], ceilings: set[str]
) -> dict[str, Difference]:
    """Of every arm but the baselines."""
    pairs = {}
    for arm, own in heights.items():
        base = heights.get(baselines.get(arm, arm), {})
        shared = [value - base[seed] for seed, value in own.items() if seed in base]
        if arm != baselines.get(arm, arm) and len(shared) > 1:
            pairs[arm] = shared
    return tested(pairs, ceilings)


def _differences(curves: Mapping[int, list[float]], base: Mapping[int, list[float]]) -> list[MeanInterval]:
    shared = [seed for seed in curves if seed in base]
    return paired_differences([curves[seed] for seed in shared], [base[seed] for seed in shared])


def _share(
    heights: Mapping[str, Mapping[int, float]], arm: str, baseline: str | None, ceiling: str | None
) -> MeanInterval | None:
    if baseline is None or ceiling is None or arm == baseline or not {baseline, ceiling} <= heights.keys():
        return None
    seeds = [seed for seed in heights[arm] if seed in heights[baseline] and seed in heights[ceiling]]
    if not seeds:
        return None
    values, base, top = ([heights[name][seed] for seed in seeds] for name in (arm, baseline, ceiling))
    return share_of_the_way(values, base, top)
