"""Groups of runs that differ in the seed alone, and the colours and names that they share in figures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from activedpo_cli.reports.run_data import RunData

BASELINE = "random"
MANY_RUNS = 8
"""With more runs than this those of a group of seeds look alike, since nobody tells so many lines apart."""


@dataclass(frozen=True, kw_only=True)
class SeedGroup:
    """At least two runs with equal settings and different seeds, in the order of the seeds.

    `label` tells the group from the others, `place` is its place among them and its colour.
    """

    label: str
    place: int
    methods: list[str]
    runs: dict[int, RunData]


def seed_groups(runs: Sequence[RunData]) -> list[SeedGroup]:
    """The groups in the order of their first runs; runs without a sibling, or repeating a seed, are in none."""
    found: dict[str, dict[int, RunData]] = {}
    for run in runs:
        if run.seed is not None and run.evaluations:
            found.setdefault(_key(run), {}).setdefault(run.seed, run)
    members = [dict(sorted(group.items())) for group in found.values() if len(group) > 1]
    firsts = [next(iter(group.values())) for group in members]
    labels = _labels(firsts)
    return [
        SeedGroup(label=label, place=place, methods=first.methods, runs=group)
        for place, (label, first, group) in enumerate(zip(labels, firsts, members, strict=True))
    ]


def ungrouped(runs: Sequence[RunData], groups: Sequence[SeedGroup]) -> list[RunData]:
    """The runs that are in none of the groups."""
    names = {run.name for group in groups for run in group.runs.values()}
    return [run for run in runs if run.name not in names]


def baseline(groups: Sequence[SeedGroup]) -> SeedGroup:
    """The group that the others are compared with: the first of method `random`, else the first."""
    return next((group for group in groups if group.methods == [BASELINE]), groups[0])


def _key(run: RunData) -> str:
    settings = {key: values for key, values in run.settings.items() if key != "seed"}
    return json.dumps([run.model_digest, run.methods, settings], sort_keys=True, default=str)


def _labels(runs: Sequence[RunData]) -> list[str]:
    """The methods, with the model and the settings that differ where several groups have the same methods."""
    names = [" then ".join(run.methods) or "no method" for run in runs]
    return [_told_apart(place, runs, names) for place in range(len(runs))]


def _told_apart(place: int, runs: Sequence[RunData], names: Sequence[str]) -> str:
    own = runs[place]
    rivals = [run for run, name in zip(runs, names, strict=True) if name == names[place]]
    differing = [
        f"{key}={' then '.join(str(value) for value in own.settings.get(key, ['not set']))}"
        for key in sorted({key for run in rivals for key in run.settings} - {"seed"})
        if any(run.settings.get(key) != own.settings.get(key) for run in rivals)
    ]
    differing += _model(own, [run for run in rivals if run.model_digest != own.model_digest])
    return names[place] + (f" ({', '.join(differing)})" if differing else "")


def _model(own: RunData, others: Sequence[RunData]) -> list[str]:
    """The model's name where other models have other names, else the first digits of its digest."""
    if not others:
        return []
    if all(run.model != own.model for run in others):
        return [f"model {own.model}"]
    return [f"model {own.model_digest.removeprefix('sha256:')[:8]}"]


@dataclass(frozen=True, kw_only=True)
class RunLook:
    """A run's place in the palette, and the name that it shares with the runs of its group where it looks like them."""

    colour: int
    group: str | None = None


def run_looks(runs: Sequence[RunData]) -> list[RunLook]:
    """A look for each run: its own, or its group's where the runs are many."""
    groups = seed_groups(runs) if len(runs) > MANY_RUNS else []
    looks = [RunLook(colour=group.place, group=f"{group.label} ({len(group.runs)} seeds)") for group in groups]
    shared = {run.name: look for group, look in zip(groups, looks, strict=True) for run in group.runs.values()}
    free = count(len(groups))
    return [shared[run.name] if run.name in shared else RunLook(colour=next(free)) for run in runs]


def look_note(looks: Sequence[RunLook]) -> str:
    """A sentence for the caption where runs look alike."""
    if not any(look.group for look in looks):
        return ""
    return " Runs that differ in the seed alone are thin lines of one colour, without markers and bands."
