"""Runs that differ in the seed alone are taken together: grouping, pairing and the numbers by hand."""

import math
from dataclasses import replace
from typing import Any

import pytest
from report_page import made_up_run

from activedpo_cli.reports.over_seeds import seed_section
from activedpo_cli.reports.run_data import Evaluation, RunData, Scorer
from activedpo_cli.reports.seeds import baseline, seed_groups

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
    method: str,
    seed: int,
    rewards: list[float],
    scorer: Scorer = JUDGE,
    step: int = 10,
    model: tuple[str, str] = ("m", "d"),
    **settings: Any,
) -> RunData:
    return made_up_run(
        method,
        seed,
        model=model[0],
        model_digest=model[1],
        settings={"seed": [seed], "select.method": [method]} | {key: [value] for key, value in settings.items()},
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


def test_groups_of_other_models_are_told_apart_by_name_or_digest():
    models = [("llama", "sha256:0123456789"), ("gemma", "sha256:aaaaaaaaaa"), ("gemma", "sha256:bbbbbbbbbb")]
    found = seed_groups([run("random", seed, [0.1, 0.2], model=model) for model in models for seed in (0, 1)])
    labels = ["random (model llama)", "random (model aaaaaaaa)", "random (model bbbbbbbb)"]
    assert [group.label for group in found] == labels


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
    assert active.sources[2] == ", ".join(f"activedpo-{seed}/iter-002/evaluate" for seed in (0, 1, 2))
    names = [f"{method}-{seed}" for method in ("activedpo", "random") for seed in (0, 1, 2)]
    assert difference.sources[2] == ", ".join(f"{name}/iter-002/evaluate" for name in names)


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
    names = [f"{method}-{seed}" for method in ("activedpo", "random") for seed in (1, 2)]
    assert difference.sources[1] == ", ".join(f"{name}/iter-001/evaluate" for name in names)
    points, totals = section.tables
    assert [row[2] for row in points.rows if row[0] == "activedpo"] == ["0", "10", "20", "30"]
    assert totals.title.endswith("from 0 to 20 labels")
    assert totals.rows[0][1].startswith("0.425 [")  # (0.1 + 0.5) / 4 + (0.5 + 0.6) / 4, without the last point
    assert totals.rows[0][3] == "not reached"  # 0.7, which it passes only after 20 labels
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
    only_baseline = seed_section([*apart, *RANDOM]).tables[1]
    assert [row[0] for row in only_baseline.rows] == ["random"]


def test_a_run_that_stopped_early_is_named_and_shortens_nothing():
    stopped = run("random", 3, [0.0, 9.0])
    whole, with_stopped = seed_section([*ACTIVE, *RANDOM]), seed_section([*ACTIVE, *RANDOM, stopped])
    assert with_stopped.plots == whole.plots
    assert with_stopped.tables == whole.tables
    (named,) = [sentence for sentence in with_stopped.sentences if sentence not in whole.sentences][1:]
    assert "the curve of random leaves out random-3" in named


def test_one_run_that_went_further_does_not_exclude_the_others():
    section = seed_section([*ACTIVE[:2], run("activedpo", 1, [0.0, 0.6, 1.0, 5.0]), *RANDOM])
    assert section.plots == seed_section([*ACTIVE, *RANDOM]).plots
    assert not [sentence for sentence in section.sentences if "leaves out" in sentence]


def test_of_two_runs_the_shorter_one_is_named_and_leaves_no_curve():
    section = seed_section([ACTIVE[0], run("activedpo", 1, [0.0, 0.6]), *RANDOM])
    assert [series.label for series in section.plots[0].panels[0].series] == ["random (3 seeds)"]
    assert section.plots[0].panels[0].series[0].colour == 1  # as in every other figure
    told = " ".join(section.sentences)
    assert "the curve of activedpo leaves out activedpo-1" in told
    assert "activedpo has no curve" in told


def test_a_run_without_the_scorer_leaves_its_group_a_curve():
    section = seed_section([*ACTIVE, *RANDOM, run("random", 4, [0.1, 0.2, 0.3], Scorer("other"))])
    by_judge = next(panel for panel in section.plots[0].panels if panel.title == "by python:judge:score")
    assert [series.label for series in by_judge.series] == ["activedpo (3 seeds)", "random (3 seeds)"]
    told = " ".join(section.sentences)
    assert "by python:judge:score: the curve of random leaves out random-4" in told
    assert "by other: random has no curve" in told


def test_runs_in_no_group_are_named():
    second = replace(run("random", 1, [9.0, 9.0, 9.0]), name="again")
    unmeasured = replace(run("random", 7, [0.1]), evaluations=[])
    other = run("random", 8, [0.1, 0.2, 0.3], beta=3)
    section = seed_section([*RANDOM, second, unmeasured, other])
    assert section.sentences[-1].endswith(": again, random-7 and random-8.")
    assert section.plots == seed_section(RANDOM).plots
    assert not [sentence for sentence in seed_section(RANDOM).sentences if "no group" in sentence]


def test_a_reward_of_zero_can_be_reached():
    up = [run("activedpo", seed, [-1.0, 1.0]) for seed in (0, 1)]
    level = [run("random", seed, [-1.0, 0.0]) for seed in (0, 1)]
    totals = seed_section([*up, *level]).tables[1]
    assert totals.columns[-1].endswith("ends with (0.000)")
    assert [row[-1] for row in totals.rows] == ["5", "10"]
