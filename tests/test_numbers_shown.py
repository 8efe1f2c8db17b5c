"""Numbers keep two digits that tell something, however small they are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.base.numbers import shown
from activedpo_cli.cli.render import counting_bar, rate_text
from activedpo_cli.reports.page import kept_together
from activedpo_cli.reports.wording import number, share_with_interval, with_interval


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.8734, 3, "0.873"),
        (0.04, 1, "0.040"),
        (0.0004, 3, "0.00040"),
        (1.2e-7, 3, "1.2e-07"),
        (0.0, 1, "0.0"),
        (-0.0, 1, "0.0"),
        (31.62, 1, "31.6"),
        (412.4, 0, "412"),
        (5.3, 0, "5"),
        (math.inf, 2, "inf"),
    ],
)
def test_a_number_has_the_decimals_asked_for_or_more(value: float, decimals: int, text: str) -> None:
    assert shown(value, decimals) == text


@given(st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: abs(value) > 1e-300), st.integers(1, 4))
def test_no_number_but_zero_is_shown_as_zero_and_none_is_off_by_a_tenth(value: float, decimals: int) -> None:
    assert math.isclose(float(shown(value, decimals)), value, rel_tol=0.06 if abs(value) < 10 else 0.5)


def test_an_interval_has_one_number_of_decimals() -> None:
    assert with_interval(0.0004, -0.02, 0.03) == "0.000 [−0.020, 0.030]"
    assert with_interval(0.04, 0.01, 0.07, 1) == "0.040 [0.010, 0.070]"
    assert share_with_interval(0.0004, 0.0001, 0.0007) == "0.040 % [0.010, 0.070]"
    assert number(-0.04, 1) == "−0.040"


def test_cells_of_a_page_break_around_brackets_and_not_within() -> None:
    assert kept_together("0.683 [0.374, 0.992]") == "0.683 [0.374,\N{NO-BREAK SPACE}0.992]"
    assert kept_together("92.5 % of all") == "92.5\N{NO-BREAK SPACE}% of all"


def test_the_rate_of_what_takes_longer_than_half_a_minute_each_is_known() -> None:
    bar = counting_bar("steps", 10, "steps", 0)
    clock = [0.0]
    bar.get_time = bar.tasks[0]._get_time = lambda: clock[0]
    bar.tasks[0].start_time = 0.0
    for _ in range(4):
        clock[0] += 45.0
        bar.advance(bar.task_ids[0])
    assert rate_text(bar.tasks[0].speed or 0.0) == "45.0 s each"
