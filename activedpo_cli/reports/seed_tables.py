"""Mean curves over seeds as tables: point by point, and what a whole curve comes to."""

from collections.abc import Sequence

from activedpo_cli.reports.section import Table, table
from activedpo_cli.reports.seed_curves import SeedCurves, at_labels, shared
from activedpo_cli.reports.seed_groups import SeedGroup
from activedpo_cli.reports.wording import number, with_interval
from activedpo_cli.statistics.learning_curves import area_under_curve, labels_to_reach, mean_curve, paired_differences
from activedpo_cli.statistics.summaries import MeanInterval, mean_interval


def seed_tables(title: str, curves: Sequence[SeedCurves], compared: SeedGroup) -> list[Table]:
    """Every point, and the whole curve where the groups have two numbers of labels in common; none without a curve."""
    if not curves:
        return []
    base = curves_of(compared, curves)
    comparable = _at_common_labels([row for row in curves if base is None or len(shared(row, base)[0].labels) > 1])
    tables = [_point_table(title, curves, compared)]
    return [*tables, _total_table(title, comparable, compared)] if comparable else tables


def curves_of(group: SeedGroup, curves: Sequence[SeedCurves]) -> SeedCurves | None:
    """The curves of a group, None where it has none."""
    return next((row for row in curves if row.group is group), None)


def differences(ours: SeedCurves, theirs: SeedCurves) -> list[MeanInterval]:
    """At each number of labels; both have the same seeds, at least two, in the same order."""
    return paired_differences([ours.rewards[seed] for seed in theirs.rewards], list(theirs.rewards.values()))


def _point_table(title: str, curves: Sequence[SeedCurves], compared: SeedGroup) -> Table:
    """A row for each group and number of labels."""
    base = curves_of(compared, curves)
    rows = []
    for row in curves:
        found = _differences_by_labels(row, base)
        for spent, mean in zip(row.labels, mean_curve(list(row.rewards.values())), strict=True):
            difference = with_interval(*found[spent]) if spent in found else ""
            rows.append([row.group.label, str(len(row.rewards)), str(spent), with_interval(*mean), difference])
    return table(
        f"Mean reward over seeds, {title}, with 95 % intervals",
        ["group", "seeds", "labels", "mean reward", f"minus {compared.label}"],
        rows,
    )


def _differences_by_labels(row: SeedCurves, base: SeedCurves | None) -> dict[int, MeanInterval]:
    if base is None or row is base:
        return {}
    ours, theirs = shared(row, base)
    return dict(zip(ours.labels, differences(ours, theirs), strict=True)) if len(ours.rewards) > 1 else {}


def _at_common_labels(curves: Sequence[SeedCurves]) -> list[SeedCurves]:
    """The curves at the numbers of labels that all of them have, so that their rows compare; none with fewer than two."""
    labels = sorted(set.intersection(*(set(row.labels) for row in curves)))
    return [at_labels(row, labels) for row in curves] if len(labels) > 1 else []


def _total_table(title: str, curves: Sequence[SeedCurves], compared: SeedGroup) -> Table:
    """What each group's whole curve comes to; all have the same numbers of labels."""
    base = curves_of(compared, curves)
    labels = curves[0].labels
    target = mean_curve(list(base.rewards.values()))[-1].mean if base else None
    return table(
        f"The whole curve, {title}, from {labels[0]} to {labels[-1]} labels",
        [
            "group",
            "mean height of the curve",
            f"minus {compared.label}",
            f"labels to the mean reward that {compared.label} ends with ({number(target)})",
        ],
        [_total(row, base, target) for row in curves],
    )


def _total(row: SeedCurves, base: SeedCurves | None, target: float | None) -> list[str]:
    against = [] if base is None or row is base else _height_differences(*shared(row, base))
    means = [point.mean for point in mean_curve(list(row.rewards.values()))]
    reached = None if target is None else labels_to_reach(row.labels, means, target)
    return [
        row.group.label,
        with_interval(*mean_interval(_heights(row))),
        with_interval(*mean_interval(against)) if len(against) > 1 else "",
        "" if target is None else "not reached" if reached is None else number(reached, 0),
    ]


def _height_differences(ours: SeedCurves, theirs: SeedCurves) -> list[float]:
    return [a - b for a, b in zip(_heights(ours), _heights(theirs), strict=True)]


def _heights(row: SeedCurves) -> list[float]:
    """For each seed the mean height of its curve."""
    return [area_under_curve(row.labels, rewards) for rewards in row.rewards.values()]
