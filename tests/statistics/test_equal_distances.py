"""Values at equal distances, against numpy's interpolation and against lines."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.statistics.learning_curves import differences_at_equal

NUMBERS = st.integers(-50, 50).map(float)
PATHS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6, unique_by=lambda point: point[0])


@given(PATHS, PATHS)
def test_the_base_is_read_as_numpy_reads_it(own: list[tuple[float, float]], base: list[tuple[float, float]]) -> None:
    (x, y), (base_x, base_y) = zip(*own, strict=True), zip(*base, strict=True)
    order = np.argsort(base_x)
    inside = [(at, value) for at, value in own if min(base_x) <= at <= max(base_x)]
    expected = [value - np.interp(at, np.array(base_x)[order], np.array(base_y)[order]) for at, value in inside]
    assert differences_at_equal(x, y, base_x, base_y) == pytest.approx(expected)


def test_points_beyond_the_base_are_left_out() -> None:
    assert differences_at_equal([0.5, 3.0], [9.0, 9.0], [0.0, 2.0], [0.0, 4.0]) == [8.0]
    assert differences_at_equal([3.0], [9.0], [0.0, 2.0], [0.0, 4.0]) == []


def test_points_of_one_distance_count_by_their_mean() -> None:
    assert differences_at_equal([1.0], [0.0], [1.0, 1.0], [2.0, 4.0]) == [-3.0]


@pytest.mark.parametrize(("x", "y"), [([], []), ([1.0], []), ([1.0], [1.0, 2.0])])
def test_what_is_no_path_is_refused(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="make no path"):
        differences_at_equal(x, y, [0.0], [0.0])
    with pytest.raises(ValueError, match="make no path"):
        differences_at_equal([0.0], [0.0], x, y)
