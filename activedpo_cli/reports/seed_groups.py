"""Runs that differ in nothing but the seed, as one group whose mean curve has an interval over seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from activedpo_cli.reports.evaluation_data import Scorer
from activedpo_cli.reports.run_data import RunData
from activedpo_cli.reports.scorers import Role, scored

BASELINE = "random"


@dataclass(frozen=True, kw_only=True)
class SeedGroup:
    """At least two runs with equal settings and different seeds; `label` tells the group from the others."""

    label: str
    methods: list[str]
    runs: dict[int, RunData]


@dataclass(frozen=True, kw_only=True)
class SeedCurves:
    """Rewards of a group's runs by one scorer, at numbers of labels that all of them have; in the order of the seeds.

    `sources` are the evaluations of each point, of all runs.
    """

    group: SeedGroup
    labels: list[int]
    rewards: dict[int, list[float]]
    sources: list[str]


def seed_groups(runs: Sequence[RunData]) -> list[SeedGroup]:
    """The groups in the order of their first runs; runs without a sibling, or repeating a seed, are in none."""
    found: dict[str, dict[int, RunData]] = {}
    for run in runs:
        if run.seed is not None and run.evaluations:
            found.setdefault(_key(run), {}).setdefault(run.seed, run)
    members = [dict(sorted(group.items())) for group in found.values() if len(group) > 1]
    labels = _labels([next(iter(group.values())) for group in members])
    return [
        SeedGroup(label=label, methods=next(iter(group.values())).methods, runs=group)
        for label, group in zip(labels, members, strict=True)
    ]


def seed_curves(groups: Sequence[SeedGroup], role: Role, scorer: Scorer) -> list[SeedCurves]:
    """The curves of the groups by one scorer; groups whose runs share fewer than two numbers of labels are left out."""
    found = [_curves(group, role, scorer) for group in groups]
    return [curves for curves in found if len(curves.labels) > 1]


def shared(first: SeedCurves, second: SeedCurves) -> tuple[SeedCurves, SeedCurves]:
    """Both at the seeds and the numbers of labels that both have."""
    labels = [spent for spent in first.labels if spent in second.labels]
    seeds = [seed for seed in first.rewards if seed in second.rewards]
    return _restricted(first, seeds, labels), _restricted(second, seeds, labels)


def _restricted(curves: SeedCurves, seeds: Sequence[int], labels: list[int]) -> SeedCurves:
    places = [curves.labels.index(spent) for spent in labels]
    return replace(
        curves,
        labels=labels,
        rewards={seed: [curves.rewards[seed][place] for place in places] for seed in seeds},
        sources=[curves.sources[place] for place in places],
    )


def _curves(group: SeedGroup, role: Role, scorer: Scorer) -> SeedCurves:
    points = {seed: {row.labels_spent: row for row in scored(run, role, scorer)} for seed, run in group.runs.items()}
    labels = sorted(set.intersection(*(set(rows) for rows in points.values())))
    return SeedCurves(
        group=group,
        labels=labels,
        rewards={
            seed: [rows[spent].metrics[f"{role}reward_mean"] for spent in labels] for seed, rows in points.items()
        },
        sources=[
            ", ".join(f"{run.name}/{points[seed][spent].source}" for seed, run in group.runs.items())
            for spent in labels
        ],
    )


def baseline(groups: Sequence[SeedGroup]) -> SeedGroup:
    """The group that the others are compared with: the first of method `random`, else the first."""
    return next((group for group in groups if group.methods == [BASELINE]), groups[0])


def _key(run: RunData) -> str:
    settings = {key: values for key, values in run.settings.items() if key != "seed"}
    return json.dumps([run.model_digest, run.methods, settings], sort_keys=True, default=str)


def _labels(runs: Sequence[RunData]) -> list[str]:
    """The methods, with the settings that differ where several groups have the same methods."""
    names = [" then ".join(run.methods) or "no method" for run in runs]
    return [_told_apart(place, runs, names) for place in range(len(runs))]


def _told_apart(place: int, runs: Sequence[RunData], names: Sequence[str]) -> str:
    rivals = [run for run, name in zip(runs, names, strict=True) if name == names[place]]
    own = runs[place].settings
    differing = [
        f"{key}={' then '.join(str(value) for value in own.get(key, ['not set']))}"
        for key in sorted({key for run in rivals for key in run.settings} - {"seed"})
        if any(run.settings.get(key) != own.get(key) for run in rivals)
    ]
    return names[place] + (f" ({', '.join(differing)})" if differing else "")
