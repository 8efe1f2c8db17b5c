"""For one measure of an experiment: each arm's curve over labels, and its difference from the baseline's."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from activedpo_cli.experiments.results import ResultRow
from activedpo_cli.reports.page import Table, table
from activedpo_cli.reports.plot import Plot, Series, against_labels, interval_series
from activedpo_cli.reports.wording import listed, number, share_with_interval, with_interval
from activedpo_cli.statistics.multiple_comparisons import holm, share_of_the_way, sign_flip_p_value
from activedpo_cli.statistics.over_seeds import (
    SeedCurves,
    differences,
    height_differences,
    labels_to_end_of,
    labels_to_end_range,
)
from activedpo_cli.statistics.summaries import MeanInterval, mean_interval

FEW_ARMS = 3
"""Arms whose ends a heading can name."""
REWARD, SECOND_REWARD = "reward_mean", "second_reward_mean"
TITLES = {
    REWARD: "Reward by the scorer that answers",
    SECOND_REWARD: "Reward by the second scorer",
    "win_rate": "Win rate against the initial model",
    "preference_accuracy": "Accuracy on held-out preferences",
}
SHARES = {TITLES["win_rate"], TITLES["preference_accuracy"]}
"""Titles of the measures that are written as per cent, their differences as percentage points."""
P_COLUMN = "p (Holm, this measure alone)"
"""Head of the column with `p_value`: each measure's arms are corrected by themselves, and nothing over measures."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An arm minus the baseline at equal seeds: mean with its 95 % interval, and p by sign flips, as is and by Holm.

    Holm's correction is over the arms within one measure. A ceiling is no hypothesis: it has no adjusted p, and is not
    counted for those of the others.
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


Measured = Sequence[tuple[str, Sequence[ArmCurve]]]
"""The title of each measure with the curves of the arms in it."""


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
    curves = {arm: _curves(rows, arm, measure) for arm in arms_in(rows)}
    bases = {arm: curves[name] for arm in curves if (name := baselines.get(arm)) in curves}
    gaps = {arm: height_differences(curves[arm], base) for arm, base in bases.items() if base is not curves[arm]}
    tests = tested({arm: values for arm, values in gaps.items() if len(values) > 1}, set(ceilings.values()))
    return [
        ArmCurve(
            arm=arm,
            seeds=list(own.values),
            labels=list(own.labels),
            curves=[list(values) for values in own.values.values()],
            mean=own.mean(),
            height=mean_interval(list(own.heights().values())),
            height_difference=tests.get(arm),
            differences=differences(own, bases[arm]) if arm in tests else None,
            labels_to_target=labels_to_end_of(own, bases[arm]) if arm in bases else None,
            labels_to_target_range=labels_to_end_range(own, bases[arm]) if arm in gaps else None,
            share=_share(own, bases[arm], curves.get(ceilings.get(arm, ""))) if arm in gaps else None,
        )
        for arm, own in curves.items()
    ]


def tested(values_by_arm: Mapping[str, Sequence[float]], ceilings: Collection[str]) -> dict[str, Difference]:
    """The mean of each arm's differences at equal seeds with its test; Holm's correction is over all but the ceilings."""
    p_values = {arm: sign_flip_p_value(values) for arm, values in values_by_arm.items()}
    corrected = [arm for arm in values_by_arm if arm not in ceilings]
    adjusted = dict(zip(corrected, holm([p_values[arm] for arm in corrected]), strict=True))
    return {
        arm: Difference(interval=mean_interval(values), p_value=p_values[arm], adjusted=adjusted.get(arm))
        for arm, values in values_by_arm.items()
    }


def _curves(rows: Sequence[ResultRow], arm: str, measure: str) -> SeedCurves:
    """The values of the seeds with the most evaluations; labels are means over seeds after each iteration."""
    values: dict[int, dict[int, float]] = {}
    labels: dict[int, list[float]] = {}
    for row in rows:
        value, spent = row.measures[measure], row.measures["labels_spent"]
        if row.arm == arm and value is not None:
            values.setdefault(row.seed, {})[row.iteration] = value
        if row.arm == arm and spent is not None:
            labels.setdefault(row.iteration, []).append(spent)
    longest = max(map(len, values.values()), default=0)
    return SeedCurves(
        labels=[fmean(labels[iteration]) for iteration in sorted(labels)],
        values={
            seed: [found[iteration] for iteration in sorted(found)]
            for seed, found in sorted(values.items())
            if len(found) == longest
        },
    )


def _share(own: SeedCurves, baseline: SeedCurves, ceiling: SeedCurves | None) -> MeanInterval | None:
    if ceiling is None:
        return None
    heights = [curves.heights() for curves in (own, baseline, ceiling)]
    seeds = [seed for seed in heights[0] if seed in heights[1] and seed in heights[2]]
    if not seeds:
        return None
    values, base, top = ([found[seed] for seed in seeds] for found in heights)
    return share_of_the_way(values, base, top)


def measure_in_words(title: str, interval: MeanInterval) -> str:
    """A value or difference of the measure with this title: `0.873 [0.851, 0.895]`, of a share `92.5 % [83.1, 97.2]`."""
    return (share_with_interval if title in SHARES else with_interval)(*interval)


def curve_table(title: str, curves: Sequence[ArmCurve], baseline: str | None) -> Table:
    """What each arm's whole curve comes to, best first."""
    ordered = sorted(curves, key=lambda row: -row.height.mean)
    rows = [
        [
            row.arm,
            str(len(row.seeds)),
            measure_in_words(title, row.height),
            "" if row.height_difference is None else measure_in_words(title, row.height_difference.interval),
            p_value(row.height_difference),
            measure_in_words(title, row.mean[-1]),
            "" if row.differences is None else measure_in_words(title, row.differences[-1]),
            "" if baseline is None else _labels(row),
            "" if row.share is None or row.share.low is None else share_with_interval(*row.share),
        ]
        for row in ordered
    ]
    columns = [
        "arm",
        "seeds",
        "mean height of the curve",
        f"minus {baseline}",
        P_COLUMN,
        "at the end",
        f"at the end, minus {baseline}",
        f"labels to where {baseline} ends",
        "share of the way to the ceiling",
    ]
    return table(title, columns, rows)


def point_table(title: str, curves: Sequence[ArmCurve]) -> Table:
    """Every arm's mean after each iteration."""
    labels = max((row.labels for row in curves), key=len)
    rows = [[row.arm, *(measure_in_words(title, point) for point in row.mean)] for row in curves]
    return table(f"{title}, after each iteration", ["arm", *(f"{number(spent, 0)} labels" for spent in labels)], rows)


def p_value(difference: Difference | None) -> str:
    """`0.021 (0.062)`, the latter corrected."""
    if difference is None:
        return ""
    return number(difference.p_value) + ("" if difference.adjusted is None else f" ({number(difference.adjusted)})")


def _labels(row: ArmCurve) -> str:
    if row.labels_to_target == row.labels[0]:
        return "from the start"
    ends = row.labels_to_target_range
    return _reached(row.labels_to_target) + ("" if ends is None else f" [{_reached(ends[0])}, {_reached(ends[1])}]")


def _reached(labels: float | None) -> str:
    return "not reached" if labels is None else number(labels, 0)


def curve_plot(measured: Measured) -> Plot:
    """Mean over seeds against labels spent, one panel a measure."""
    return Plot(
        name="reward",
        message=_ending(measured),
        title="Reward against labels",
        caption="Mean over seeds; the band is a 95 % interval (Student's t) over seeds.",
        alternative="Mean reward against labels spent, a line for each arm.",
        panels=[
            against_labels(
                title,
                "mean over held-out prompts",
                [_series(row, row.mean, place) for place, row in enumerate(curves)],
                is_share=title in SHARES,
            )
            for title, curves in measured
        ],
    )


def _ending(measured: Measured) -> str:
    """Where the arms end in the first measure, of a few."""
    title, curves = next(iter(measured), ("", []))
    ends = [f"{row.arm} {measure_in_words(title, row.mean[-1])}" for row in curves]
    return f"At the end: {listed(ends)}" if 0 < len(ends) <= FEW_ARMS else ""


def difference_plot(measured: Measured, baseline: str, message: str = "") -> Plot:
    """The same minus the baseline at equal seeds; `message` is its heading."""
    panels = [
        against_labels(
            title,
            f"minus {baseline}",
            [_series(row, row.differences, place) for place, row in enumerate(curves) if row.differences is not None],
            level=0.0,
            is_share=title in SHARES,
        )
        for title, curves in measured
    ]
    return Plot(
        name="differences",
        message=message,
        title=f"Difference to {baseline}",
        caption=f"Mean difference to {baseline} at equal seeds; the band is its 95 % interval. Where it holds the dotted "
        "line at 0, the seeds do not tell the two apart.",
        alternative=f"Difference in mean reward to {baseline} against labels spent.",
        panels=[panel for panel in panels if panel.series],
    )


def _series(row: ArmCurve, points: Sequence[MeanInterval], place: int) -> Series:
    return interval_series(f"{row.arm} ({len(row.seeds)})", row.labels, points, ["results.jsonl"], colour=place)
