"""Mean curves over seeds, and each group's difference to the baseline at equal seeds."""

from collections.abc import Sequence

from activedpo_cli.reports.plot import Panel, Plot, Series
from activedpo_cli.reports.run_data import RunData
from activedpo_cli.reports.scorers import ROLES, scorers, titles
from activedpo_cli.reports.section import Section
from activedpo_cli.reports.seed_curves import SeedCurves, point_sources, seed_curves, shared
from activedpo_cli.reports.seed_groups import SeedGroup, baseline, seed_groups, ungrouped
from activedpo_cli.reports.seed_tables import curves_of, differences, seed_tables
from activedpo_cli.reports.wording import listed
from activedpo_cli.statistics.learning_curves import mean_curve
from activedpo_cli.statistics.summaries import MeanInterval

LABELS = "labels spent"

ByScorer = Sequence[tuple[str, list[SeedCurves]]]
"""The title of each scorer with the curves of the groups that it scored."""


def seed_section(runs: Sequence[RunData]) -> Section | None:
    """What several seeds of the same settings say together; None where no two runs differ in the seed alone."""
    groups = seed_groups(runs)
    scored = [
        (title, seed_curves(groups, role, scorer)) for role in ROLES for scorer, title in titles(scorers(runs, role))
    ]
    if not any(curves for _, curves in scored):
        return None
    compared = baseline(groups)
    drawn = [(title, [row for row in curves if row.has_mean_curve]) for title, curves in scored]
    plots = [_mean_plot(drawn), _difference_plot(drawn, compared)]
    return Section(
        anchor="seeds",
        title="Over seeds",
        sentences=[*_sentences(groups, compared), *_gaps(scored), *_alone(ungrouped(runs, groups))],
        plots=[plot for plot in plots if plot.panels],
        tables=[table for title, curves in drawn for table in seed_tables(title, curves, compared)],
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


def _gaps(scored: ByScorer) -> list[str]:
    """Which runs are missing in a curve, and which groups have none."""
    titles_by_fact: dict[str, list[str]] = {}
    for title, curves in scored:
        for row in curves:
            if row.left_out:
                fact = (
                    f"the curve of {row.group.label} leaves out {listed(row.left_out)} for lack of evaluations "
                    "that at least half of the group's runs have"
                )
                titles_by_fact.setdefault(fact, []).append(title)
            if not row.has_mean_curve:
                fact = (
                    f"{row.group.label} has no curve, which takes two runs evaluated at the same two numbers of labels"
                )
                titles_by_fact.setdefault(fact, []).append(title)
    return [f"Rewards {listed(found)}: {fact}." for fact, found in titles_by_fact.items()]


def _alone(runs: Sequence[RunData]) -> list[str]:
    if not runs:
        return []
    return [
        "In no group, because no other run differs from it in the seed alone, one of the same seed stands before it, or "
        f"it was never evaluated: {listed([run.name for run in runs])}."
    ]


def _mean_plot(drawn: ByScorer) -> Plot:
    panels = [
        Panel(
            title=title,
            x_label=LABELS,
            x_from_zero=True,
            y_label="mean reward",
            series=[_series(row, mean_curve(list(row.rewards.values())), point_sources(row)) for row in curves],
        )
        for title, curves in drawn
    ]
    return Plot(
        name="seeds",
        title="Mean reward over seeds",
        caption="Mean over runs that differ in the seed alone; the band is a 95 % interval (Student's t) over seeds.",
        alternative="Mean reward over seeds against labels spent, for each group of runs.",
        panels=[panel for panel in panels if panel.series],
    )


def _difference_plot(drawn: ByScorer, compared: SeedGroup) -> Plot:
    panels = [
        Panel(
            title=title,
            x_label=LABELS,
            x_from_zero=True,
            y_label=f"reward minus that of {compared.label}",
            level=0.0,
            series=_difference_series(curves, compared),
        )
        for title, curves in drawn
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
    base = curves_of(compared, curves)
    found = []
    for row in curves:
        if base is None or row is base:
            continue
        ours, theirs = shared(row, base)
        if len(ours.rewards) > 1 and ours.labels:
            found.append(_series(ours, differences(ours, theirs), point_sources(ours, theirs)))
    return found


def _series(row: SeedCurves, points: Sequence[MeanInterval], sources: list[str]) -> Series:
    return Series(
        label=f"{row.group.label} ({len(row.rewards)} seeds)",
        x=list(row.labels),
        y=[point.mean for point in points],
        low=[point.low for point in points],
        high=[point.high for point in points],
        sources=sources,
        colour=row.group.place,
    )
