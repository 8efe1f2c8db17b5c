"""Compares arms at equal KL to the reference, since a reward may be higher only because the policy went farther.

The usual view of over-optimisation: Gao, Schulman and Hilton, arXiv 2210.10760.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from activedpo_cli.experiments.curves import P_COLUMN, Difference, arms_in, p_value, tested
from activedpo_cli.experiments.results import ResultRow
from activedpo_cli.reports.page import Table, table
from activedpo_cli.reports.plot import Panel, Plot, Series
from activedpo_cli.reports.wording import number, with_interval
from activedpo_cli.statistics.learning_curves import differences_at_equal

KL = "kl_to_reference"
KLPath = Sequence[tuple[float, float]]
"""(KL, reward) of a run, in the order of its evaluations; the first is the initial model."""


@dataclass(frozen=True, kw_only=True)
class AtEqualKL:
    """An arm minus the baseline where both are equally far from the reference.

    Attributes:
        difference: The mean over seeds. For each seed every evaluation of either run whose KL lies within the other run's is
            compared with the other's curve at that KL, and the differences are averaged. Using both runs' evaluations
            makes the sign turn when the arms are exchanged, and cancels what straight lines between evaluations leave out
            of a bent curve. The lines are straight in √KL, along which rewards rise most evenly.
        seeds: How many seeds have such an evaluation.
        compared: The share of evaluations, those of iteration 0 left out, that could be compared.

    """

    difference: Difference
    seeds: int
    compared: float


def at_equal_kl(
    rows: Sequence[ResultRow], measure: str, baselines: Mapping[str, str], ceilings: Collection[str] = ()
) -> dict[str, AtEqualKL]:
    """For every arm but the baselines, where two seeds or more can be compared. Iteration 0 is not counted."""
    paths = {arm: _paths(rows, arm, measure) for arm in arms_in(rows)}
    gains = {
        arm: [_gains(own[seed], base[seed]) for seed in own if seed in base]
        for arm, own in paths.items()
        if arm != (name := baselines.get(arm, arm)) and (base := paths.get(name, {}))
    }
    means = {arm: [fmean(values) for values in found if values] for arm, found in gains.items()}
    found = tested({arm: values for arm, values in means.items() if len(values) > 1}, ceilings)
    return {
        arm: AtEqualKL(
            difference=difference,
            seeds=len(means[arm]),
            compared=sum(map(len, gains[arm])) / _evaluations(paths, arm, baselines[arm]),
        )
        for arm, difference in found.items()
    }


def distance_table(found: Mapping[str, Mapping[str, AtEqualKL]], rows: Sequence[ResultRow]) -> Table:
    """The arms at equal KL, by the title of each measure; the baselines have only where they end."""
    compared = {arm: entry for by_arm in found.values() for arm, entry in by_arm.items()}
    cells = []
    for arm in arms_in(rows) if compared else []:
        line = [arm, _last_kl(rows, arm)]
        for by_arm in found.values():
            entry = by_arm.get(arm)
            line += (
                ["", ""] if entry is None else [with_interval(*entry.difference.interval), p_value(entry.difference)]
            )
        own = compared.get(arm)
        cells.append([*line, *(["", ""] if own is None else [str(own.seeds), f"{100 * own.compared:.0f} %"])])
    heads = [head for title in found for head in (f"{title}: minus the baseline", P_COLUMN)]
    return table("At equal KL", ["arm", "KL at the end, nats", *heads, "seeds", "evaluations compared"], cells)


def distance_plot(rows: Sequence[ResultRow], measures: Mapping[str, str]) -> Plot:
    """Mean reward against mean KL, a point an evaluation."""
    panels = [
        Panel(
            title=title,
            x_label="KL to the reference, nats a response",
            x_from_zero=True,
            y_label="mean over held-out prompts",
            series=[_series(rows, arm, measure, place) for place, arm in enumerate(arms_in(rows))],
        )
        for measure, title in measures.items()
    ]
    return Plot(
        name="distance",
        title="Reward against distance from the reference",
        caption="Means over seeds after each iteration, in order. An arm above another at the same KL gets more for going "
        "as far; one that is only farther to the right goes farther with as many labels.",
        alternative="Mean reward against mean KL to the reference, a line for each arm.",
        panels=[panel for panel in panels if panel.series],
    )


def _paths(rows: Sequence[ResultRow], arm: str, measure: str) -> dict[int, list[tuple[float, float]]]:
    found: dict[int, list[tuple[float, float]]] = {}
    for row in sorted(rows, key=lambda row: row.iteration):
        distance, value = row.measures[KL], row.measures[measure]
        if row.arm == arm and distance is not None and value is not None:
            found.setdefault(row.seed, []).append((distance, value))
    return dict(sorted(found.items()))


def _gains(own: KLPath, base: KLPath) -> list[float]:
    forth = differences_at_equal(*_rooted(own[1:]), *_rooted(base))
    back = differences_at_equal(*_rooted(base[1:]), *_rooted(own))
    return [*forth, *(-difference for difference in back)]


def _rooted(path: KLPath) -> tuple[list[float], list[float]]:
    return [math.sqrt(max(distance, 0.0)) for distance, _ in path], [value for _, value in path]


def _evaluations(paths: Mapping[str, Mapping[int, KLPath]], arm: str, base: str) -> int:
    """How many there are of both where both have the seed, those of the initial model left out."""
    seeds = [seed for seed in paths[arm] if seed in paths[base]]
    return sum(len(paths[name][seed]) - 1 for seed in seeds for name in (arm, base))


def _last_kl(rows: Sequence[ResultRow], arm: str) -> str:
    own = [row for row in rows if row.arm == arm]
    last = max(row.iteration for row in own)
    values = [row.measures[KL] for row in own if row.iteration == last]
    return number(fmean(value for value in values if value is not None), 1)


def _series(rows: Sequence[ResultRow], arm: str, measure: str, place: int) -> Series:
    paths = _paths(rows, arm, measure).values()
    longest = max(map(len, paths))
    whole = [path for path in paths if len(path) == longest]
    return Series(
        label=f"{arm} ({len(whole)})",
        x=[fmean(distance for distance, _ in points) for points in zip(*whole, strict=True)],
        y=[fmean(value for _, value in points) for points in zip(*whole, strict=True)],
        sources=["results.jsonl"],
        colour=place,
    )
