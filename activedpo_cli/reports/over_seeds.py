"""Mean curves over seeds, and each group's difference to the baseline at equal seeds, as figures and tables."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from activedpo_cli.evaluate.measures import ROLES, Role
from activedpo_cli.reports.page import Section, Table, table
from activedpo_cli.reports.plot import Plot, Series, against_labels, interval_series
from activedpo_cli.reports.rewards import scored, scorers, titles
from activedpo_cli.reports.run_data import Evaluation, RunData, Scorer
from activedpo_cli.reports.seeds import SeedGroup, baseline, seed_groups, ungrouped
from activedpo_cli.reports.verdict import Comparison, comparisons_of, message_of
from activedpo_cli.reports.wording import listed, number, with_interval
from activedpo_cli.statistics.learning_curves import labels_to_reach
from activedpo_cli.statistics.over_seeds import (
    SeedCurves,
    at_shared_labels,
    differences,
    height_differences,
    of_shared_seeds,
)
from activedpo_cli.statistics.summaries import MeanInterval, mean_interval


@dataclass(frozen=True, kw_only=True)
class GroupCurves:
    """The rewards of a group's runs by one scorer, at the numbers of labels that they share.

    Attributes:
        sources: By seed and number of labels the evaluation that the reward was read from.
        left_out: Runs of the group that lack a number of labels which at least half of its runs were evaluated at.

    """

    group: SeedGroup
    curves: SeedCurves
    sources: Mapping[int, Mapping[int, str]]
    left_out: list[str]

    @property
    def has_mean_curve(self) -> bool:
        """Whether two seeds share two points: fewer make no interval and no line."""
        return len(self.curves.values) > 1 and len(self.curves.labels) > 1


@dataclass(frozen=True, kw_only=True)
class ByScorer:
    """What one scorer says of the groups: their curves, and the curves of the group that they are compared with."""

    title: str
    rows: list[GroupCurves]
    compared: SeedGroup

    @property
    def base(self) -> GroupCurves | None:
        """The baseline's curves, None where it has none by this scorer."""
        return next((row for row in self.rows if row.group is self.compared), None)

    def both(self, row: GroupCurves) -> tuple[SeedCurves, SeedCurves] | None:
        """A group and the baseline at the seeds and labels that both have; None for the baseline, and below two seeds."""
        base = self.base
        if base is None or row is base:
            return None
        ours, theirs = at_shared_labels(of_shared_seeds(row.curves, base.curves))
        return (ours, theirs) if len(ours.values) > 1 else None

    def comparisons(self) -> list[Comparison]:
        """The groups against the baseline, in the height of the curve at the labels and seeds that both have."""
        pairs = {row.group.label: both for row in self.rows if (both := self.both(row)) and both[0].labels}
        return comparisons_of({name: height_differences(*both) for name, both in pairs.items()})


def seed_section(runs: Sequence[RunData]) -> Section | None:
    """What several seeds of the same settings say together; None where no two runs differ in the seed alone."""
    groups = seed_groups(runs)
    found = _curves(runs, groups)
    if not any(rows for _, rows in found):
        return None
    compared = baseline(groups)
    drawn = _drawn(found, compared)
    plots = [_mean_plot(drawn), _difference_plot(drawn, compared)]
    return Section(
        anchor="seeds",
        title="Over seeds",
        sentences=[*_sentences(groups, compared), *_gaps(found), *_alone(ungrouped(runs, groups))],
        plots=[plot for plot in plots if plot.panels],
        tables=[entry for scored_by in drawn for entry in _tables(scored_by)],
    )


def groups_by_scorer(runs: Sequence[RunData]) -> list[ByScorer]:
    """What each scorer says of the groups of seeds, the scorer of the evaluation first; empty without groups."""
    groups = seed_groups(runs)
    return _drawn(_curves(runs, groups), baseline(groups)) if groups else []


def _curves(runs: Sequence[RunData], groups: Sequence[SeedGroup]) -> list[tuple[str, list[GroupCurves]]]:
    return [
        (title, _curves_by(groups, role, scorer)) for role in ROLES for scorer, title in titles(scorers(runs, role))
    ]


def _drawn(found: Sequence[tuple[str, list[GroupCurves]]], compared: SeedGroup) -> list[ByScorer]:
    return [
        ByScorer(title=title, rows=[row for row in rows if row.has_mean_curve], compared=compared)
        for title, rows in found
    ]


def _curves_by(groups: Sequence[SeedGroup], role: Role, scorer: Scorer) -> list[GroupCurves]:
    """The curves of the groups of which the scorer scored any run."""
    found = []
    for group in groups:
        points = {
            seed: {row.labels_spent: row for row in scored(run, role, scorer)} for seed, run in group.runs.items()
        }
        if any(points.values()):
            found.append(_group_curves(group, points, f"{role}reward_mean"))
    return found


def _group_curves(group: SeedGroup, points: Mapping[int, Mapping[int, Evaluation]], field: str) -> GroupCurves:
    usual = _usual_labels([rows.keys() for rows in points.values()])
    kept = {seed: rows for seed, rows in points.items() if rows.keys() >= usual}
    labels = sorted(set.intersection(*(set(rows) for rows in kept.values()))) if kept else []
    values = {seed: [rows[spent].metrics[field] for spent in labels] for seed, rows in kept.items()}
    return GroupCurves(
        group=group,
        curves=SeedCurves(labels=labels, values=values),
        sources={
            seed: {spent: f"{group.runs[seed].name}/{row.source}" for spent, row in rows.items()}
            for seed, rows in kept.items()
        },
        left_out=[run.name for seed, run in group.runs.items() if seed not in kept],
    )


def _usual_labels(runs: Sequence[Set[int]]) -> set[int]:
    """The numbers of labels that at least half of the runs were evaluated at."""
    counts = Counter(spent for labels in runs for spent in labels)
    return {spent for spent, count in counts.items() if 2 * count >= len(runs)}


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


def _gaps(found: Sequence[tuple[str, list[GroupCurves]]]) -> list[str]:
    """Which runs are missing in a curve, and which groups have none."""
    titles_by_fact: dict[str, list[str]] = {}
    for title, rows in found:
        for row in rows:
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
    return [f"Rewards {listed(named)}: {fact}." for fact, named in titles_by_fact.items()]


def _alone(runs: Sequence[RunData]) -> list[str]:
    if not runs:
        return []
    return [
        "In no group, because no other run differs from it in the seed alone, one of the same seed stands before it, or "
        f"it was never evaluated: {listed([run.name for run in runs])}."
    ]


def _mean_plot(drawn: Sequence[ByScorer]) -> Plot:
    panels = [
        against_labels(
            scored_by.title,
            "mean reward",
            [_series(row, row.curves, row.curves.mean(), [row]) for row in scored_by.rows],
        )
        for scored_by in drawn
    ]
    return Plot(
        name="seeds",
        title="Mean reward over seeds",
        caption="Mean over runs that differ in the seed alone; the band is a 95 % interval (Student's t) over seeds.",
        alternative="Mean reward over seeds against labels spent, for each group of runs.",
        panels=[panel for panel in panels if panel.series],
    )


def _difference_plot(drawn: Sequence[ByScorer], compared: SeedGroup) -> Plot:
    y_label = f"reward minus that of {compared.label}"
    first = next((scored_by.comparisons() for scored_by in drawn), [])
    panels = [against_labels(scored_by.title, y_label, _difference_series(scored_by), level=0.0) for scored_by in drawn]
    return Plot(
        name="seed-differences",
        message=message_of(first, compared.label) if first else "",
        title=f"Difference to {compared.label} at equal seeds",
        caption=f"Mean of the difference to the run of {compared.label} with the same seed; the band is its 95 % interval "
        "(Student's t) over seeds. Where it holds the dotted line at 0, the seeds do not tell the two apart.",
        alternative=f"Difference in mean reward to {compared.label} against labels spent.",
        panels=[panel for panel in panels if panel.series],
    )


def _difference_series(scored_by: ByScorer) -> list[Series]:
    base, found = scored_by.base, []
    for row in scored_by.rows:
        both = scored_by.both(row)
        if base is not None and both is not None and both[0].labels:
            found.append(_series(row, both[0], differences(*both), [row, base]))
    return found


def _series(
    row: GroupCurves, curves: SeedCurves, points: Sequence[MeanInterval], parts: Sequence[GroupCurves]
) -> Series:
    """A line of a group; each point names the evaluations of all seeds of all parts that it came from."""
    seeds = list(curves.values)
    return interval_series(
        f"{row.group.label} ({len(seeds)} seeds)",
        curves.labels,
        points,
        [", ".join(part.sources[seed][int(spent)] for part in parts for seed in seeds) for spent in curves.labels],
        colour=row.group.place,
    )


def _tables(scored_by: ByScorer) -> list[Table]:
    """Every point, and the whole curve where the groups have two numbers of labels in common; none without a curve."""
    if not scored_by.rows:
        return []
    base = scored_by.base
    near = [row for row in scored_by.rows if base is None or len(set(row.curves.labels) & set(base.curves.labels)) > 1]
    common = at_shared_labels([row.curves for row in near]) if near else []
    points = _point_table(scored_by)
    if not common or len(common[0].labels) < 2:
        return [points]
    rows = [replace(row, curves=curves) for row, curves in zip(near, common, strict=True)]
    return [points, _total_table(replace(scored_by, rows=rows))]


def _point_table(scored_by: ByScorer) -> Table:
    """A row for each group and number of labels."""
    rows = []
    for row in scored_by.rows:
        both = scored_by.both(row)
        found = dict(zip(both[0].labels, differences(*both), strict=True)) if both else {}
        for spent, mean in zip(row.curves.labels, row.curves.mean(), strict=True):
            difference = with_interval(*found[spent]) if spent in found else ""
            rows.append([row.group.label, str(len(row.curves.values)), str(spent), with_interval(*mean), difference])
    return table(
        f"Mean reward over seeds, {scored_by.title}, with 95 % intervals",
        ["group", "seeds", "labels", "mean reward", f"minus {scored_by.compared.label}"],
        rows,
    )


def _total_table(scored_by: ByScorer) -> Table:
    """What each group's whole curve comes to; all have the same numbers of labels, so that the rows compare."""
    compared, base = scored_by.compared.label, scored_by.base
    labels = scored_by.rows[0].curves.labels
    target = base.curves.mean()[-1].mean if base else None
    return table(
        f"The whole curve, {scored_by.title}, from {labels[0]} to {labels[-1]} labels",
        [
            "group",
            "mean height of the curve",
            f"minus {compared}",
            f"labels to the mean reward that {compared} ends with ({number(target)})",
        ],
        [_total(row, base, target) for row in scored_by.rows],
    )


def _total(row: GroupCurves, base: GroupCurves | None, target: float | None) -> list[str]:
    curves = row.curves
    against = [] if base is None or row is base else height_differences(curves, base.curves)
    reached = None if target is None else labels_to_reach(curves.labels, [p.mean for p in curves.mean()], target)
    return [
        row.group.label,
        with_interval(*mean_interval(list(curves.heights().values()))),
        with_interval(*mean_interval(against)) if len(against) > 1 else "",
        "" if target is None else "not reached" if reached is None else number(reached, 0),
    ]
