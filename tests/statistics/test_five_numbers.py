import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.statistics.summaries import five_numbers


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60))
def test_the_points_are_those_of_the_standard_library(values: list[float]) -> None:
    """Twentieths, by linear interpolation between neighbours."""
    twentieths = statistics.quantiles(values, n=20, method="inclusive")
    expected = [twentieths[place - 1] for place in (1, 5, 10, 15, 19)]
    assert list(five_numbers(values) or ()) == pytest.approx(expected, abs=1e-6)


def test_one_value_is_all_points_and_none_gives_nothing() -> None:
    assert five_numbers([3]) == (3, 3, 3, 3, 3)
    assert five_numbers([]) is None
