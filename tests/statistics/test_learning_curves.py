"""Learning curves against closed forms and numpy."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.statistics.learning_curves import (
    area_under_curve,
    labels_to_reach,
    labels_to_reach_range,
    mean_curve,
    paired_differences,
)

CURVES = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(1, 50), min_size=n, max_size=n).map(lambda steps: np.cumsum(steps).tolist()),
        st.lists(st.floats(-5, 5), min_size=n, max_size=n),
    )
)


@given(CURVES)
def test_area_is_the_mean_height(curve):
    labels, rewards = curve
    assert area_under_curve(labels, rewards) == pytest.approx(
        np.trapezoid(rewards, labels) / (labels[-1] - labels[0]), abs=1e-9
    )


@given(CURVES, st.floats(-5, 5))
def test_the_target_is_first_reached_there(curve, target):
    labels, rewards = curve
    found = labels_to_reach(labels, rewards, target)
    grid = np.linspace(labels[0], labels[-1], 4001)
    heights = np.interp(grid, labels, rewards)
    if found is None:
        assert max(rewards) < target
        return
    assert np.interp(found, labels, rewards) == pytest.approx(target, abs=1e-6) or found == labels[0]
    assert not (heights[grid < found - 1e-6] >= target + 1e-6).any()


def test_by_hand():
    assert labels_to_reach([0, 20, 40], [0.0, 1.0, 1.0], 0.25) == 5
    assert labels_to_reach([0, 20, 40], [0.5, 0.4, 0.9], 0.5) == 0
    assert labels_to_reach([0, 20, 40], [0.1, 0.2, 0.3], 0.31) is None


def test_means_and_paired_differences():
    first, second = [[1.0, 4.0], [2.0, 6.0], [3.0, 8.0]], [[0.0, 4.0], [2.0, 5.0], [1.0, 9.0]]
    assert [point.mean for point in mean_curve(first)] == [2.0, 6.0]
    start, end = paired_differences(first, second)
    # differences 1, 0, 2: standard deviation 1, t(2, 0.975) = 4.30265
    assert (start.mean, start.low, start.high) == (
        1.0,
        pytest.approx(1 - 4.30265 / 3**0.5, abs=1e-4),
        pytest.approx(1 + 4.30265 / 3**0.5, abs=1e-4),
    )
    assert end.mean == 0.0


def test_the_range_of_labels_to_a_target_is_that_of_resampled_seeds():
    """Three seeds: every one of the 27 draws counted out, by the share of draws in which the target is reached by then."""
    labels = [0, 10, 20]
    curves = [[0.0, 0.2, 1.0], [0.0, 0.6, 0.8], [0.1, 0.9, 1.2]]
    base = [[0.0, 0.1, 0.5], [0.0, 0.3, 0.4], [0.1, 0.2, 1.1]]
    draws = np.array(list(itertools.product(range(3), repeat=3)))
    reached = sorted(
        labels_to_reach(
            labels, np.mean([curves[i] for i in draw], axis=0).tolist(), np.mean([base[i][-1] for i in draw])
        )
        or np.inf
        for draw in draws
    )
    low, high = labels_to_reach_range(labels, curves, base)
    # 2.5 % of the probability lies within the first of 27 equally likely draws, and 97.5 % within the last.
    assert low == pytest.approx(reached[0])
    assert high == pytest.approx(reached[-1])
    assert labels_to_reach_range(labels, curves[:2], base[:2]) is None


def test_a_target_that_some_seeds_never_reach_has_no_upper_end():
    curves = [[0.0, 1.0], [0.0, 0.1], [0.0, 1.2]]
    low, high = labels_to_reach_range([0, 10], curves, [[0.0, 0.5]] * 3)
    assert low == pytest.approx(0.5 / 1.2 * 10)
    assert high is None
    with pytest.raises(ValueError, match="pairs"):
        labels_to_reach_range([0, 10], curves, [[0.0, 0.5]] * 2)


def test_what_is_no_curve():
    for labels, rewards in (([1], [1.0]), ([1, 2], [1.0]), ([2, 1], [1.0, 2.0]), ([1, 1], [1.0, 2.0])):
        with pytest.raises(ValueError, match="curve"):
            area_under_curve(labels, rewards)
