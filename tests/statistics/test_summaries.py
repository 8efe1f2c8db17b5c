import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.statistics.summaries import mean_interval, student_t_quantile, win_rate, win_rate_interval


@pytest.mark.parametrize(
    ("probability", "degrees_of_freedom", "table"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.3027),
        (0.975, 3, 3.1824),
        (0.975, 4, 2.7764),
        (0.975, 5, 2.5706),
        (0.975, 10, 2.2281),
        (0.975, 30, 2.0423),
        (0.975, 100, 1.9840),
        (0.95, 1, 6.3138),
        (0.95, 9, 1.8331),
        (0.995, 7, 3.4995),
        (0.995, 1, 63.6567),
        (0.9995, 20, 3.8495),
        (0.9, 60, 1.2958),
    ],
)
def test_quantiles_of_the_printed_table(probability: float, degrees_of_freedom: int, table: float) -> None:
    assert student_t_quantile(probability, degrees_of_freedom) == pytest.approx(table, abs=1e-4)


@given(st.floats(0.001, 0.999))
def test_closed_forms_for_one_and_two_degrees_of_freedom(p: float) -> None:
    assert student_t_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)), rel=1e-9, abs=1e-12)
    assert student_t_quantile(p, 2) == pytest.approx((2 * p - 1) / math.sqrt(2 * p * (1 - p)), rel=1e-9, abs=1e-12)


@given(st.floats(0.0001, 0.9999))
def test_many_degrees_of_freedom_approach_the_normal(p: float) -> None:
    assert student_t_quantile(p, 1e6) == pytest.approx(NormalDist().inv_cdf(p), abs=3e-5)


@pytest.mark.parametrize(("probability", "degrees"), [(0.0, 3), (1.0, 3), (0.5, 0), (math.nan, 3)])
def test_quantile_refuses_what_has_none(probability: float, degrees: float) -> None:
    with pytest.raises(ValueError, match="no t quantile"):
        student_t_quantile(probability, degrees)


def test_mean_interval_worked_by_hand() -> None:
    """1, 2, 3, 4: mean 2.5, s = √(5/3) = 1.29099, s/√4 = 0.645497, t(0.975; 3) = 3.182446: ± 2.054260."""
    assert mean_interval([1.0, 2.0, 3.0, 4.0]) == pytest.approx((2.5, 0.445740, 4.554260), abs=1e-5)


def test_mean_interval_of_one_prompt_has_no_ends() -> None:
    assert mean_interval([3.0]) == (3.0, None, None)
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


def test_win_rate_counts_ties_as_half() -> None:
    assert win_rate([1.0, 2.0, 3.0, 0.0], [0.0, 2.0, 1.0, 5.0]) == (1 + 0.5 + 1 + 0) / 4


@pytest.mark.parametrize(("new", "old"), [([], []), ([1.0], []), ([math.nan], [0.0]), ([0.0], [math.nan])])
def test_win_rate_refuses_what_can_not_be_compared(new: list[float], old: list[float]) -> None:
    with pytest.raises(ValueError, match="shorter|numbers"):
        win_rate(new, old)


def test_wilson_interval_worked_by_hand() -> None:
    """8 of 10: centre (0.8 + 3.84146/20) / 1.384146 = 0.716740, half width 0.226578 → 0.4902, 0.9433 (textbook)."""
    assert win_rate_interval([1.0] * 8 + [0.0] * 2) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)


def test_wilson_interval_keeps_a_width_when_every_prompt_is_won() -> None:
    """k = n: the lower end is n / (n + z²) = 10 / 13.84146 = 0.72247."""
    assert win_rate_interval([1.0] * 10) == pytest.approx((1.0, 0.722467, 1.0), abs=1e-5)


@given(st.lists(st.sampled_from([0.0, 0.5, 1 / 3, 1.0]), min_size=1, max_size=30))
def test_wilson_interval_lies_within_zero_and_one(rates: list[float]) -> None:
    mean, low, high = win_rate_interval(rates)
    assert low is not None
    assert high is not None
    assert 0 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1


def test_win_rate_interval_refuses_what_is_no_rate() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        win_rate_interval([1.2])
    with pytest.raises(ValueError, match="between 0 and 1"):
        win_rate_interval([])
