"""The rewards of a group's runs at the numbers of labels that they share."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from activedpo_cli.reports.evaluation_data import Evaluation, Scorer
from activedpo_cli.reports.scorers import Role, scored
from activedpo_cli.reports.seed_groups import SeedGroup


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
