"""Mean curves over seeds, and each group's difference to the baseline at equal seeds."""

from collections.abc import Sequence

from activedpo_cli.core.learning_curves import area_under_curve, labels_to_reach, mean_curve, paired_differences
from activedpo_cli.core.statistics import MeanInterval, mean_interval
from activedpo_cli.reports.plot import Panel, Plot, Series
from activedpo_cli.reports.run_data import RunData
from activedpo_cli.reports.scorers import ROLES, scorers, titles
from activedpo_cli.reports.section import Section, Table, table
from activedpo_cli.reports.seed_groups import SeedCurves, SeedGroup, baseline, seed_curves, seed_groups, shared
from activedpo_cli.reports.wording import listed, number, with_interval

LABELS = "labels spent"


def seed_section(runs: Sequence[RunData]) -> Section | None:
    """What several seeds of the same settings say together; None where no two runs differ in the seed alone."""
    groups = seed_groups(runs)
    if not groups:
        return None
    by_scorer = [
        (title, curves)
        for role in ROLES
        for scorer, title in titles(scorers(runs, role))
        if (curves := seed_curves(groups, role, scorer))
    ]
    if not by_scorer:
        return None
    compared = baseline(groups)
    plots = [_mean_plot(by_scorer), _difference_plot(by_scorer, compared)]
    return Section(
        anchor="seeds",
        title="Over seeds",
        sentences=_sentences(groups, compared),
        plots=[plot for plot in plots if plot.panels],
        tables=[
            made
            for title, curves in by_scorer
            for made in (_curve_table(title, curves, compared), _total_table(title, curves, compared))
        ],
    )


def _sentences(groups: Sequence[SeedGroup], compared: SeedGroup) -> list[str]:
    counts = [f"{group.label}: {len(group.runs)} seeds" for group in groups]
    sentences = [
        f"Runs that differ in the seed alone are taken together ({listed(counts)}). The seed decides prompts, samples, "
        "adapter, projection and order of training, so intervals here say how far other seeds could move a mean."
    ]
    if len(groups) > 1:
        sentences.append(
            f"Differences are to {compared.label}, run by run at equal seeds. Each interval holds for its point alone; "
            "of twenty such intervals one misses on average, and nothing is corrected for that."
        )
    return sentences


def _mean_plot(by_scorer: Sequence[tuple[str, list[SeedCurves]]]) -> Plot:
    return Plot(
        name="seeds",
        title="Mean reward over seeds",
        caption="Mean over runs that differ in the seed alone; the band is a 95 % interval (Student's t) over seeds.",
        alternative="Mean reward over seeds against labels spent, for each group of runs.",
        panels=[
            Panel(
                title=title,
                x_label=LABELS,
                x_from_zero=True,
                y_label="mean reward",
                series=[
                    _series(place, row, mean_curve(list(row.rewards.values()))) for place, row in enumerate(curves)
                ],
            )
            for title, curves in by_scorer
        ],
    )


def _difference_plot(by_scorer: Sequence[tuple[str, list[SeedCurves]]], compared: SeedGroup) -> Plot:
    panels = [
        Panel(
            title=title,
            x_label=LABELS,
            x_from_zero=True,
            y_label=f"reward minus that of {compared.label}",
            level=0.0,
            series=_difference_series(curves, compared),
        )
        for title, curves in by_scorer
    ]
    return Plot(
        name="seed-differences",
        title=f"Difference to {compared.label} at equal seeds",
        caption=f"Mean of the difference to the run of {compared.label} with the same seed; the band is its 95 % interval "
        "(Student's t) over seeds. Where it holds the dotted line at 0, the seeds do not tell the two apart.",
        alternative=f"Difference in mean reward to {compared.label} against labels spent.",
        panels=[panel for panel in panels if panel.series],
    )


def _difference_series(curves: Sequence[SeedCurves], compared: SeedGroup) -> list[Series]:
    base = _of(compared, curves)
    found = []
    for place, row in enumerate(curves):
        if base is None or row is base:
            continue
        ours, theirs = shared(row, base)
        if len(ours.rewards) > 1 and ours.labels:
            found.append(_series(place, ours, _differences(ours, theirs)))
    return found


def _series(place: int, row: SeedCurves, points: Sequence[MeanInterval]) -> Series:
    return Series(
        label=f"{row.group.label} ({len(row.rewards)} seeds)",
        x=list(row.labels),
        y=[point.mean for point in points],
        low=[point.low for point in points],
        high=[point.high for point in points],
        sources=row.sources,
        colour=place,
    )


def _of(group: SeedGroup, curves: Sequence[SeedCurves]) -> SeedCurves | None:
    return next((row for row in curves if row.group is group), None)


def _differences(ours: SeedCurves, theirs: SeedCurves) -> list[MeanInterval]:
    """At each number of labels; both have the same seeds, at least two, in the same order."""
    return paired_differences([ours.rewards[seed] for seed in theirs.rewards], list(theirs.rewards.values()))


def _curve_table(title: str, curves: Sequence[SeedCurves], compared: SeedGroup) -> Table:
    """A row for each group and number of labels."""
    base = _of(compared, curves)
    rows = []
    for row in curves:
        differences = _differences_by_labels(row, base)
        for spent, mean in zip(row.labels, mean_curve(list(row.rewards.values())), strict=True):
            difference = with_interval(*differences[spent]) if spent in differences else ""
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
    return dict(zip(ours.labels, _differences(ours, theirs), strict=True)) if len(ours.rewards) > 1 else {}


def _total_table(title: str, curves: Sequence[SeedCurves], compared: SeedGroup) -> Table:
    """What each group's whole curve comes to."""
    base = _of(compared, curves)
    target = mean_curve(list(base.rewards.values()))[-1].mean if base else None
    return table(
        f"The whole curve, {title}",
        [
            "group",
            "mean height of the curve",
            f"minus {compared.label}",
            f"labels to the mean reward that {compared.label} ends with" + (f" ({number(target)})" if target else ""),
        ],
        [_total(row, base, target) for row in curves],
    )


def _total(row: SeedCurves, base: SeedCurves | None, target: float | None) -> list[str]:
    areas = [area_under_curve(row.labels, rewards) for rewards in row.rewards.values()]
    means = [point.mean for point in mean_curve(list(row.rewards.values()))]
    reached = None if target is None else labels_to_reach(row.labels, means, target)
    against = [] if base is None or row is base else _area_differences(*shared(row, base))
    return [
        row.group.label,
        with_interval(*mean_interval(areas)),
        with_interval(*mean_interval(against)) if len(against) > 1 else "",
        "" if target is None else "not reached" if reached is None else number(reached, 0),
    ]


def _area_differences(ours: SeedCurves, theirs: SeedCurves) -> list[float]:
    """For each seed, over the labels that both curves have; empty where these are fewer than two."""
    if len(ours.labels) < 2:
        return []
    areas = [{s: area_under_curve(row.labels, rewards) for s, rewards in row.rewards.items()} for row in (ours, theirs)]
    return [areas[0][seed] - areas[1][seed] for seed in areas[0]]
