"""Mean curves over seeds, and each group's difference to the baseline at equal seeds, as figures and tables."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from activedpo_cli.reports.page import Section, Table, table
from activedpo_cli.reports.plot import Panel, Plot, Series
from activedpo_cli.reports.rewards import ROLES, Role, scored, scorers, titles
from activedpo_cli.reports.run_data import Evaluation, RunData, Scorer
from activedpo_cli.reports.seeds import SeedGroup, baseline, seed_groups, ungrouped
from activedpo_cli.reports.wording import listed, number, with_interval
from activedpo_cli.statistics.learning_curves import area_under_curve, labels_to_reach, mean_curve, paired_differences
from activedpo_cli.statistics.summaries import MeanInterval, mean_interval

LABELS = "labels spent"
ByScorer = Sequence[tuple[str, list["SeedCurves"]]]
"""The title of each scorer with the curves of the groups that it scored."""


@dataclass(frozen=True, kw_only=True)
class SeedCurves:
    """Rewards by one scorer at equal numbers of labels, for each seed in ascending order.

    Attributes:
        sources: The evaluation that each reward was read from.
        left_out: Runs of the group that lack a number of labels which at least half of its runs were evaluated at.

    """

    group: SeedGroup
    labels: list[int]
    rewards: dict[int, list[float]]
    sources: dict[int, list[str]]
    left_out: list[str]

    @property
    def has_mean_curve(self) -> bool:
        """Whether two seeds share two points: fewer make no interval and no line."""
        return len(self.rewards) > 1 and len(self.labels) > 1


def seed_curves(groups: Sequence[SeedGroup], role: Role, scorer: Scorer) -> list[SeedCurves]:
    """The curves of the groups of which the scorer scored any run."""
    found = []
    for group in groups:
        points = {
            seed: {row.labels_spent: row for row in scored(run, role, scorer)} for seed, run in group.runs.items()
        }
        if any(points.values()):
            found.append(_curves(group, points, f"{role}reward_mean"))
    return found


def shared(first: SeedCurves, second: SeedCurves) -> tuple[SeedCurves, SeedCurves]:
    """Both at the seeds and the numbers of labels that both have."""
    labels = [spent for spent in first.labels if spent in second.labels]
    seeds = [seed for seed in first.rewards if seed in second.rewards]
    return _restricted(first, seeds, labels), _restricted(second, seeds, labels)


def at_labels(curves: SeedCurves, labels: Sequence[int]) -> SeedCurves:
    """The curves of all their seeds at some of their numbers of labels."""
    return _restricted(curves, list(curves.rewards), labels)


def point_sources(*parts: SeedCurves) -> list[str]:
    """For each point the evaluations of all seeds of all parts, which have equal numbers of labels."""
    rows = [row for part in parts for row in part.sources.values()]
    return [", ".join(names) for names in zip(*rows, strict=True)]


def _restricted(curves: SeedCurves, seeds: Sequence[int], labels: Sequence[int]) -> SeedCurves:
    places = [curves.labels.index(spent) for spent in labels]
    return replace(
        curves,
        labels=list(labels),
        rewards={seed: [curves.rewards[seed][place] for place in places] for seed in seeds},
        sources={seed: [curves.sources[seed][place] for place in places] for seed in seeds},
    )


def _curves(group: SeedGroup, points: Mapping[int, Mapping[int, Evaluation]], field: str) -> SeedCurves:
    usual = _usual_labels([rows.keys() for rows in points.values()])
    kept = {seed: rows for seed, rows in points.items() if rows.keys() >= usual}
    labels = sorted(set.intersection(*(set(rows) for rows in kept.values()))) if kept else []
    return SeedCurves(
        group=group,
        labels=labels,
        rewards={seed: [rows[spent].metrics[field] for spent in labels] for seed, rows in kept.items()},
        sources={
            seed: [f"{group.runs[seed].name}/{rows[spent].source}" for spent in labels] for seed, rows in kept.items()
        },
        left_out=[run.name for seed, run in group.runs.items() if seed not in kept],
    )


def _usual_labels(runs: Sequence[Set[int]]) -> set[int]:
    """The numbers of labels that at least half of the runs were evaluated at."""
    counts = Counter(spent for labels in runs for spent in labels)
    return {spent for spent, count in counts.items() if 2 * count >= len(runs)}


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
