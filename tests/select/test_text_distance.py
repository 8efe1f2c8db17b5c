import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.select.methods.dissimilar import text_distance


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("", "", 0),
        ("", "a", 1),
        ("ab", "ab", 0),
        ("ab", "ba", 1),
        ("abcd", "abce", 2 / 3),  # abc shared, bcd and bce not
        ("aaaa", "aaaaa", 1 / 3),  # aaa twice against three times
        ("今天天气很好", "今天天气不好", 1 - 2 / 6),
        ("abc", "xyz", 1),
    ],
)
def test_by_hand(first: str, second: str, expected: float) -> None:
    assert text_distance(first, second) == pytest.approx(expected)


@given(st.text(max_size=30), st.text(max_size=30))
def test_symmetric_and_between_zero_and_one(first: str, second: str) -> None:
    found = text_distance(first, second)
    assert 0 <= found <= 1
    assert found == text_distance(second, first)
    assert text_distance(first, first) == 0


@given(st.text("ab", max_size=12), st.text("ab", max_size=12), st.text("ab", max_size=12))
def test_triangle_inequality(a: str, b: str, c: str) -> None:
    assert text_distance(a, c) <= text_distance(a, b) + text_distance(b, c) + 1e-12
