"""Runs that differ in the seed alone are taken together: grouping, pairing and the numbers by hand."""

import math
from typing import Any

import pytest

from activedpo_cli.reports.evaluation_data import Evaluation, Scorer
from activedpo_cli.reports.run_data import RunData
from activedpo_cli.reports.seed_groups import baseline, seed_groups
from activedpo_cli.reports.seed_section import seed_section

JUDGE = Scorer("python:judge:score", ("a",))
T_2 = 4.302653  # 97.5 % quantile of Student's t with 2 degrees of freedom


def evaluation(iteration: int, labels: int, reward: float, initial: float, scorer: Scorer) -> Evaluation:
    metrics = {"reward_mean": reward, "reward_mean_initial": initial, "n": 10}
    return Evaluation(
        iteration=iteration,
        source=f"iter-{iteration:03d}/evaluate",
        labels_spent=labels,
        scorer=scorer,
        second_scorer=None,
        metrics=metrics,
    )


def run(
    method: str, seed: int, rewards: list[float], scorer: Scorer = JUDGE, step: int = 10, **settings: Any
) -> RunData:
    return RunData(
        name=f"{method}-{seed}",
        preset="tiny",
        made_by="",
        model="m",
        model_digest="d",
        prompts_digest=str(seed),
        seed=seed,
        methods=[method],
        settings={"seed": [seed], "select.method": [method]} | {key: [value] for key, value in settings.items()},
        stages=[],
        unfinished=[],
        evaluations=[
            evaluation(place, step * place, reward, rewards[0], scorer) for place, reward in enumerate(rewards)
        ],
    )


ACTIVE = [
    run("activedpo", 0, [0.1, 0.5, 0.6]),
    run("activedpo", 2, [0.2, 0.7, 0.8]),
    run("activedpo", 1, [0.0, 0.6, 1.0]),
]
RANDOM = [run("random", 0, [0.1, 0.4, 0.5]), run("random", 1, [0.0, 0.2, 0.7]), run("random", 2, [0.2, 0.3, 0.9])]


def test_groups_are_told_apart_by_everything_but_the_seed():
    other = [run("activedpo", 0, [0.1, 0.2], beta=0.5), run("activedpo", 1, [0.1, 0.3], beta=0.5)]
    plain = [run("activedpo", 0, [0.1, 0.2], beta=0.1), run("activedpo", 1, [0.1, 0.3], beta=0.1)]
    alone = run("activedpo", 5, [0.1, 0.2], beta=0.9)
    found = seed_groups([*other, alone, *plain])
    assert [(group.label, list(group.runs)) for group in found] == [
        ("activedpo (beta=0.5)", [0, 1]),
        ("activedpo (beta=0.1)", [0, 1]),
    ]
    assert seed_groups([alone, other[0]]) == []
    assert baseline(seed_groups([*ACTIVE, *RANDOM])).label == "random"
    assert baseline(found) is found[0]


def test_mean_curves_and_differences_by_hand():
    section = seed_section([*ACTIVE, *RANDOM])
    means, differences = section.plots
    assert (means.name, differences.name) == ("seeds", "seed-differences")
    active, by_chance = means.panels[0].series
    assert active.x == by_chance.x == [0, 10, 20]
    assert active.y == pytest.approx([0.1, 0.6, 0.8])
    assert by_chance.y == pytest.approx([0.1, 0.3, 0.7])
    # active after 20 labels: 0.6, 1.0, 0.8 with standard deviation 0.2
    assert active.high[2] == pytest.approx(0.8 + T_2 * 0.2 / math.sqrt(3), abs=1e-6)
    (difference,) = differences.panels[0].series
    # seed 0: 0.1, seed 1: 0.4 and 0.3, seed 2: 0.4 and -0.1
    assert difference.y == pytest.approx([0.0, 0.3, 0.1])
    assert difference.low[2] == pytest.approx(0.1 - T_2 * 0.2 / math.sqrt(3), abs=1e-6)
    assert differences.panels[0].level == 0
    assert "activedpo-2/iter-002/evaluate" in active.sources[2]


def test_totals_by_hand():
    curves, totals = seed_section([*ACTIVE, *RANDOM]).tables
    assert [row[:3] for row in curves.rows] == [
        [method, "3", labels] for method in ("activedpo", "random") for labels in ("0", "10", "20")
    ]
    active, by_chance = totals.rows
    # (0.1 + 0.6) / 4 + (0.6 + 0.8) / 4 and (0.1 + 0.3) / 4 + (0.3 + 0.7) / 4
    assert active[1].startswith("0.525 [")
    assert by_chance[1].startswith("0.350 [")
    assert active[2].startswith("0.175 [")
    assert by_chance[2] == ""
    # 0.7 is halfway between 0.6 at 10 labels and 0.8 at 20
    assert (active[3], by_chance[3]) == ("15", "20")


def test_a_target_that_is_never_reached():
    worse = [run("activedpo", seed, [0.1, 0.15, 0.2]) for seed in (0, 1)]
    assert seed_section([*worse, *RANDOM]).tables[1].rows[0][3] == "not reached"


def test_only_shared_seeds_and_shared_labels_are_paired():
    longer = [run("activedpo", seed, [0.1, 0.5, 0.6, 0.9]) for seed in (1, 2, 7)]
    section = seed_section([*longer, *RANDOM])
    (difference,) = section.plots[1].panels[0].series
    assert difference.x == [0, 10, 20]
    assert difference.y == pytest.approx([0.0, 0.25, -0.2])  # seeds 1 and 2
    unshared = [run("activedpo", seed, [0.1, 0.5, 0.6]) for seed in (8, 9)]
    assert [plot.name for plot in seed_section([*unshared, *RANDOM]).plots] == ["seeds"]


def test_one_group_has_no_differences_and_no_siblings_no_section():
    assert [plot.name for plot in seed_section(ACTIVE).plots] == ["seeds"]
    assert seed_section([ACTIVE[0], RANDOM[0]]) is None


def test_other_scorers_have_panels_of_their_own():
    foreign = [run("activedpo", seed, [0.1, 0.5, 0.6], Scorer("other")) for seed in (0, 1)]
    (means,) = seed_section([*foreign, *RANDOM]).plots
    assert [[series.label for series in panel.series] for panel in means.panels] == [
        ["activedpo (2 seeds)"],
        ["random (3 seeds)"],
    ]


def test_groups_with_other_budgets_are_compared_where_both_were_measured():
    sparse = [run("activedpo", seed, [0.1, 0.5, 0.9], step=20) for seed in (0, 1)]
    section = seed_section([*sparse, *RANDOM])
    assert [series.x for series in section.plots[0].panels[0].series] == [[0, 20, 40], [0, 10, 20]]
    (difference,) = section.plots[1].panels[0].series
    assert difference.x == [0, 20]
    assert difference.y == pytest.approx([(0.0 + 0.1) / 2, (0.0 - 0.2) / 2])
    apart = [run("activedpo", seed, [0.1, 0.5, 0.6], step=7) for seed in (0, 1)]
    assert [table.columns for table in seed_section([*apart, *RANDOM]).tables][0][-1] == "minus random"  # at 0 labels
    assert "minus random" not in seed_section([*apart, *RANDOM]).tables[1].columns
