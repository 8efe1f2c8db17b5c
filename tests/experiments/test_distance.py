"""Rewards at equal KL: runs made by hand, for which the answer is known."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.experiments.distance import at_equal_kl, distance_plot, distance_table
from activedpo_cli.experiments.results import ResultRow

AGAINST_RANDOM = {"random": "random", "other": "random"}
AGAINST_OTHER = {"random": "other", "other": "other"}


def run_of(arm: str, seed: int, points: list[tuple[float, float]]) -> list[ResultRow]:
    return [
        ResultRow(
            arm=arm,
            seed=seed,
            iteration=iteration,
            measures={"labels_spent": 10.0 * iteration, "kl_to_reference": kl, "reward_mean": reward},
            seconds={},
            score_gap=None,
            bytes_of_features=None,
            digest="sha256:0",
        )
        for iteration, (kl, reward) in enumerate(points)
    ]


def along(curve: Callable[[float], float], distances: list[float]) -> list[tuple[float, float]]:
    return [(kl, curve(kl)) for kl in distances]


def test_an_arm_that_only_goes_farther_gains_nothing() -> None:
    """Both get 0.1 √KL; the one of the two that is ahead after every iteration is ahead by going farther."""
    rows = [
        row
        for seed in (0, 1, 2)
        for arm, reach in (("random", 1.0), ("other", 3.0))
        for row in run_of(arm, seed, along(lambda kl: 0.1 * math.sqrt(kl), [0.0, 4 * reach, 9 * reach, 16 * reach]))
    ]
    found = at_equal_kl(rows, "reward_mean", AGAINST_RANDOM)
    assert list(found) == ["other"]
    assert found["other"].difference.interval.mean == pytest.approx(0, abs=1e-12)
    assert found["other"].seeds == 3
    assert found["other"].compared == pytest.approx(4 / 6), "random's three, and the other's first (12 of at most 16)"


def test_a_better_arm_gains_what_it_is_better_by() -> None:
    rows = [
        row
        for seed, better in enumerate((0.2, 0.3, 0.4))
        for row in (
            *run_of("random", seed, along(math.sqrt, [0.0, 1.0, 4.0, 9.0])),
            *run_of("other", seed, [(0.0, better), *along(lambda kl, up=better: math.sqrt(kl) + up, [2.0, 3.0, 5.0])]),
        )
    ]
    found = at_equal_kl(rows, "reward_mean", AGAINST_RANDOM)["other"]
    assert found.difference.interval.mean == pytest.approx(0.3)
    assert found.difference.p_value == found.difference.adjusted == 2 / 2**3


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(-20, 20)), min_size=8, max_size=8))
def test_the_sign_turns_with_the_arms(points: list[tuple[int, int]]) -> None:
    paths = {"random": [(0.0, 0.0), *points[:4]], "other": [(0.0, 0.0), *points[4:]]}
    rows = [row for seed in (0, 1) for arm, path in paths.items() for row in run_of(arm, seed, path)]
    forth, back = (at_equal_kl(rows, "reward_mean", against) for against in (AGAINST_RANDOM, AGAINST_OTHER))
    assert ("other" in forth) == ("random" in back)
    if forth:
        assert forth["other"].difference.interval.mean == pytest.approx(-back["random"].difference.interval.mean)


def test_the_bend_of_the_curve_is_no_gain() -> None:
    """On one logarithm, far from straight in √KL, an arm with other stops than the baseline gains next to nothing."""

    def bent(kl: float) -> float:
        return math.log1p(kl)

    paths = {"random": along(bent, [0.0, 10.0, 40.0]), "other": along(bent, [0.0, 5.0, 25.0])}
    rows = [row for seed in (0, 1) for arm, path in paths.items() for row in run_of(arm, seed, path)]
    chords = abs(at_equal_kl(rows, "reward_mean", AGAINST_RANDOM)["other"].difference.interval.mean)
    one_way = bent(5.0) - bent(10.0) * math.sqrt(5 / 10)
    assert chords < 0.3 * abs(one_way)


def test_runs_without_one_another_are_not_compared() -> None:
    path = [(0.0, 0.0), (1.0, 1.0)]
    rows = [
        *run_of("random", 0, path),
        *run_of("random", 2, path),
        *run_of("other", 1, path),
        *run_of("other", 2, path),
    ]
    assert at_equal_kl(rows, "reward_mean", AGAINST_RANDOM) == {}, "one seed in common tells nothing"
    assert distance_table({"Reward": {}}, rows).rows == []


def test_a_ceiling_is_no_hypothesis() -> None:
    rows = [
        row
        for seed in (0, 1, 2)
        for arm, up in (("random", 0.0), ("other", 1.0), ("third", 1.0), ("top", 2.0))
        for row in run_of(arm, seed, along(lambda kl, up=up: kl + up, [0.0, 1.0, 2.0]))
    ]
    found = at_equal_kl(rows, "reward_mean", dict.fromkeys(("random", "other", "third", "top"), "random"), {"top"})
    assert found["other"].difference.adjusted == found["third"].difference.adjusted == 2 * 2 / 2**3
    assert found["top"].difference.adjusted is None


def test_the_table_and_the_figure_say_where_each_arm_ended() -> None:
    rows = [
        row
        for seed in (0, 1)
        for arm, end in (("random", 4.0), ("other", 8.0))
        for row in run_of(arm, seed, along(math.sqrt, [0.0, end + seed]))
    ]
    shown = distance_table({"Reward": at_equal_kl(rows, "reward_mean", AGAINST_RANDOM)}, rows)
    assert [line[:2] for line in shown.rows] == [["random", "4.5"], ["other", "8.5"]]
    assert shown.rows[0][2:] == ["", "", "", ""]
    series = {entry.label: entry for entry in distance_plot(rows, {"reward_mean": "Reward"}).panels[0].series}
    assert series["other (2)"].x == [0.0, 8.5]
    assert series["random (2)"].y == pytest.approx([0.0, (2 + math.sqrt(5)) / 2])
