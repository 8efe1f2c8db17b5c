"""Days as chat templates read them, beside those that Python's own reader takes."""

from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.base.template_date import read_date


@given(day=st.dates(min_value=date(1000, 1, 1)), case=st.sampled_from([str, str.lower, str.upper]))
def test_every_day_is_read_as_pythons_reader_does(day: date, case: type[str]) -> None:
    for text in (day.strftime("%d %b %Y"), f"{day.day}  {day:%b} {day.year}"):
        assert read_date(case(text)) == datetime.strptime(text, "%d %b %Y")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "26 Jul",
        "26 Jul 24",
        "31 Jun 2024",
        "29 Feb 2023",
        "2_6 Jul 2024",
        "+6 Jul 2024",
        "26 July 2024",
    ]
    + ["2024-07-26", "26 07 2024", "0 Jul 2024", "26 Jul 2024 00:00", "-6 Jul 2024"],
)
def test_what_is_no_day_is_refused_as_there(text: str) -> None:
    with pytest.raises(ValueError, match="26 Jul 2024"):
        read_date(text)
    with pytest.raises(ValueError, match="does not match|unconverted|out of range"):
        datetime.strptime(text, "%d %b %Y")
