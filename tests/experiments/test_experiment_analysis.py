"""The statistics of an experiment against numbers worked out another way."""

import itertools
import math
import random
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activedpo_cli.experiments.curves import analyse
from activedpo_cli.experiments.report import all_tables, analysis_of, report_inputs, report_sentences
from activedpo_cli.experiments.results import MEASURES, ResultRow
from activedpo_cli.experiments.spec import ExperimentSpec
from activedpo_cli.statistics.multiple_comparisons import holm, share_of_the_way, sign_flip_p_value
from activedpo_cli.statistics.summaries import mean_interval

DIFFERENCES = st.lists(st.integers(-20, 20), min_size=1, max_size=9)


def row(arm: str, seed: int, iteration: int, reward: float) -> ResultRow:
    return ResultRow(
        arm=arm,
        seed=seed,
        iteration=iteration,
        measures={"labels_spent": 10 * iteration, "reward_mean": reward},
        seconds={},
        score_gap=None,
        bytes_of_features=None,
        digest="sha256:0",
    )


@given(DIFFERENCES)
def test_sign_flips_are_all_counted(differences: list[int]) -> None:
    """Integers, so that sums are exact: the share of sign choices with a sum as far from 0."""
    sums = [abs(sum(signs)) for signs in itertools.product(*((value, -value) for value in differences))]
    assert sign_flip_p_value(differences) == pytest.approx(fmean(s >= abs(sum(differences)) for s in sums))


def test_equal_signs_give_the_smallest_p() -> None:
    assert sign_flip_p_value([0.1, 0.2, 0.30000000000000004, 0.1]) == 2 / 2**4
    assert sign_flip_p_value([0.0, 0.0]) == 1


def test_many_differences_are_sampled_near_the_normal_limit() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 60)
    z = values.sum() / math.sqrt((values**2).sum())
    assert sign_flip_p_value(values.tolist()) == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), abs=0.01)
    assert sign_flip_p_value(values.tolist()) == sign_flip_p_value(values.tolist())


@pytest.mark.parametrize("seed", [0, 7])
def test_the_sampled_signs_are_those_of_the_standard_library(seed: int) -> None:
    """Drawn one by one, as reports of earlier versions drew them, so that their numbers stay."""
    values = [float(value) for value in np.random.default_rng(1).integers(-9, 20, 15)]
    draw, count = random.Random(seed), 20_000
    sums = [abs(sum(draw.choice((1, -1)) * value for value in values)) for _ in range(count)]
    hits = sum(found >= abs(sum(values)) for found in sums)
    assert sign_flip_p_value(values, seed) == (hits + 1) / (count + 1)
    assert 0.001 < hits / count < 0.2, "else it would prove little"


def test_holm_on_a_textbook_example() -> None:
    """Holm (1979) by hand: 4 · 0.005, 3 · 0.01, then the largest so far."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for alpha in (0.01, 0.05, 0.2):
        rejected: set[int] = set()
        for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if (len(p_values) - rank) * p_values[place] > alpha:
                break
            rejected.add(place)
        assert {place for place, p in enumerate(adjusted) if p <= alpha} == rejected


def test_the_share_of_the_way() -> None:
    found = share_of_the_way([1.5, 2.5, 3.5], [1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
    assert found == pytest.approx((0.5, 0.5, 0.5))
    assert share_of_the_way([1.0], [1.0], [0.5]) is None, "a ceiling below the baseline is none"
    unclear = share_of_the_way([1.0, 2.0], [0.0, 0.0], [2.0, -1.0])
    assert unclear is not None
    assert unclear.low is None


def test_the_ends_of_the_share_are_where_student_t_begins_to_tell() -> None:
    """Fieller by definition: at each end the mean of the remaining difference has an interval that just touches 0."""
    draw = np.random.default_rng(3)
    base = draw.normal(0, 1, 10)
    values, ceiling = base + draw.normal(0.6, 0.3, 10), base + draw.normal(1.0, 0.3, 10)
    found = share_of_the_way(values.tolist(), base.tolist(), ceiling.tolist())
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.mean < found.high
    for share, end in ((found.low, "low"), (found.high, "high")):
        left = mean_interval(((values - base) - share * (ceiling - base)).tolist())
        assert getattr(left, end) == pytest.approx(0, abs=1e-9)


def test_the_share_covers_the_truth() -> None:
    """Of many experiments with five seeds about 95 in 100 intervals hold the true share; a bootstrap's would be 86."""
    draw = np.random.default_rng(0)
    hits, trials = 0, 1000
    for _ in range(trials):
        base = draw.normal(0, 0.3, 5)
        values, ceiling = base + draw.normal(0.5, 0.2, 5), base + draw.normal(1.0, 0.2, 5)
        found = share_of_the_way(values.tolist(), base.tolist(), ceiling.tolist())
        assert found is not None
        hits += found.low is None or found.high is None or found.low <= 0.5 <= found.high
    assert 0.93 <= hits / trials <= 0.97


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_heights_and_differences_are_those_of_numpy(seeds: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    rewards = {arm: draw.normal(size=(seeds, 4)) for arm in ("random", "ours")}
    rows = [
        row(arm, number, iteration, float(values[number, iteration]))
        for arm, values in rewards.items()
        for number in range(seeds)
        for iteration in range(4)
    ]
    base, ours = analyse(rows, "reward_mean", {"random": "random", "ours": "random"}, {})
    heights = {arm: np.trapezoid(values, dx=10, axis=1) / 30 for arm, values in rewards.items()}
    assert ours.labels == [0, 10, 20, 30]
    assert ours.height.mean == pytest.approx(heights["ours"].mean())
    assert base.height_difference is None
    assert ours.height_difference is not None
    expected = mean_interval((heights["ours"] - heights["random"]).tolist())
    assert ours.height_difference.interval == pytest.approx(expected)
    assert ours.differences is not None
    assert [point.mean for point in ours.differences] == pytest.approx(
        (rewards["ours"] - rewards["random"]).mean(axis=0).tolist()
    )


def test_only_seeds_of_both_are_compared_and_unequal_curves_left_out() -> None:
    rows = [row("random", seed, t, 1.0 * t) for seed in (0, 1, 2) for t in (0, 1)]
    rows += [row("ours", seed, t, 2.0 * t) for seed in (1, 2, 3) for t in (0, 1)] + [row("ours", 9, 0, 5.0)]
    base, ours = analyse(rows, "reward_mean", {"random": "random", "ours": "random"}, {})
    assert ours.seeds == [1, 2, 3]
    assert ours.height_difference is not None
    assert ours.height_difference.interval.mean == pytest.approx(0.5)
    assert ours.labels_to_target == pytest.approx(5)
    rows = [row("random", seed, t, (1.0 if seed else 9.0) * t) for seed in (0, 1, 2, 3) for t in (0, 1)]
    rows += [row("ours", seed, t, 2.0 * t) for seed in (1, 2, 3) for t in (0, 1)]
    _, ours = analyse(rows, "reward_mean", {"random": "random", "ours": "random"}, {})
    assert (ours.labels_to_target, ours.labels_to_target_range) == (pytest.approx(5), pytest.approx((5, 5)))


def test_a_ceiling_is_not_counted_among_the_comparisons() -> None:
    arms = {"random": 1.0, "ours": 2.0, "top": 3.0}
    rows = [row(arm, seed, t, value * t + seed) for arm, value in arms.items() for seed in range(4) for t in (0, 1)]
    _, ours, top = analyse(rows, "reward_mean", dict.fromkeys(arms, "random"), dict.fromkeys(arms, "top"))
    assert ours.height_difference is not None
    assert ours.height_difference.adjusted == ours.height_difference.p_value == 2 / 2**4
    assert top.height_difference is not None
    assert top.height_difference.adjusted is None


def test_each_point_of_a_grid_has_its_own_baseline() -> None:
    arms = {"random+r=2": 1.0, "ours+r=2": 2.0, "random+r=4": 10.0, "ours+r=4": 13.0}
    rows = [row(arm, seed, t, value * t) for arm, value in arms.items() for seed in (0, 1) for t in (0, 1)]
    baselines = {arm: "random+" + arm.partition("+")[2] for arm in arms}
    found = {curve.arm: curve for curve in analyse(rows, "reward_mean", baselines, {})}
    assert {arm: curve.height_difference and curve.height_difference.interval.mean for arm, curve in found.items()} == {
        "random+r=2": None,
        "ours+r=2": pytest.approx(0.5),
        "random+r=4": None,
        "ours+r=4": pytest.approx(1.5),
    }


def test_one_evaluation_is_a_height_of_its_own() -> None:
    rows = [row("random", seed, 1, 3.0 + seed) for seed in (0, 1)]
    assert analyse(rows, "reward_mean", {}, {})[0].height.mean == pytest.approx(3.5)


def test_each_measure_is_corrected_by_itself_and_the_tables_say_so() -> None:
    """Three arms in two measures: Holm's p of a measure is that of its own two comparisons, by hand."""
    gains = {
        "reward_mean": {"ours": [1, 1, 1, 1], "other": [1, 1, 1, -1]},
        "win_rate": {"ours": [1, -1, 1, -1], "other": [1] * 4},
    }
    rows = []
    for arm, seed, t in itertools.product(("random", "ours", "other"), range(4), (0, 1)):
        values = {name: t * float(by_arm.get(arm, [0] * 4)[seed]) for name, by_arm in gains.items()}
        plain = row(arm, seed, t, 0.0)
        rows.append(replace(plain, measures=dict.fromkeys(MEASURES) | plain.measures | values))
    methods = {arm: {"select.method": "random"} for arm in ("random", "ours", "other")}
    spec = ExperimentSpec(title="T", arms=methods, seeds=[0, 1, 2, 3], iterations=1, baseline="random")
    tables = [entry for entry in all_tables(analysis_of(rows, spec)) if "minus random" in entry.columns]
    found = {}
    for entry in tables:
        (place,) = [place for place, head in enumerate(entry.columns) if head == "p (Holm, this measure alone)"]
        found[entry.title] = {line[0]: line[place] for line in entry.rows if line[0] != "random"}
    # Four equal signs have p 2/16; one against three 10/16, two against two 1. Holm doubles the smaller one of two.
    assert list(found.values()) == [
        {"ours": "0.125 (0.250)", "other": "0.625 (0.625)"},
        {"ours": "1.000 (1.000)", "other": "0.125 (0.250)"},
    ]
    assert "Each measure is corrected by itself" in " ".join(report_sentences(analysis_of(rows, spec)))


def test_a_small_kl_is_not_shown_as_nothing() -> None:
    rows = [row("a", seed, iteration, 0.5) for seed in (0, 1) for iteration in (0, 1)]
    rows = [replace(one, measures={**dict.fromkeys(MEASURES), **one.measures, "kl_to_reference": 0.04}) for one in rows]
    spec = ExperimentSpec(title="", arms=["a"], seeds=[0, 1])
    found = [entry for entry in all_tables(analysis_of(rows, spec)) if "KL, nats" in entry.columns]
    assert [entry.rows[0][entry.columns.index("KL, nats")] for entry in found] == ["0.040 [0.040, 0.040]"]


def test_the_inputs_of_a_report_change_with_what_it_says() -> None:
    rows = [row(arm, seed, t, 1.0 * t) for arm in ("random", "ours") for seed in (0, 1) for t in (0, 1)]
    methods = {arm: {"select.method": "random"} for arm in ("random", "ours")}
    spec = ExperimentSpec(title="T", arms=methods, seeds=[0, 1], iterations=1, baseline="random")
    before = report_inputs(rows, spec)
    assert before == report_inputs(list(rows), spec)
    assert list(before) == ["experiment.json", "random-s0", "random-s1", "ours-s0", "ours-s1"]
    slower = [replace(entry, seconds={"select": 1.0}) if entry.arm == "ours" else entry for entry in rows]
    changed = report_inputs(slower, spec)
    assert {name for name in before if before[name] != changed[name]} == {"ours-s0", "ours-s1"}
    other = report_inputs(rows, spec.model_copy(update={"baseline": None}))
    assert {name for name in before if before[name] != other[name]} == {"experiment.json"}
