"""The chart in text, read back: every value and interval stands where the numbers below the plot say."""

import pytest
from drawn_chart import Drawn
from hypothesis import example, given
from hypothesis import strategies as st

from activedpo_cli.cli.drawing import ASCII, UNICODE, Point, Symbols, draw_chart, encodable, sparkline, symbols_for

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-10, 10),
    st.sampled_from([0.0, -0.0, 5e-324, 1e308, -1e308, 1e16, 1e16 + 2, 0.1, 0.30000000000000004]),
)
TENTHS = st.integers(-(10**5), 10**5).map(lambda number: number / 10)
"""Numbers that the six digits below the plot give exactly."""


@st.composite
def evaluations(draw: st.DrawFn, numbers: st.SearchStrategy[float]) -> list[Point]:
    labels = sorted(draw(st.sets(st.integers(0, 10**6), min_size=1, max_size=12)))
    points = []
    for number in labels:
        low, value, high = sorted(draw(st.tuples(numbers, numbers, numbers)))
        points.append(Point(number, value, low, high) if draw(st.booleans()) else Point(number, value))
    return points


@given(evaluations(TENTHS), st.integers(40, 120), st.sampled_from([UNICODE, ASCII]))
def test_read_back(points: list[Point], width: int, symbols: Symbols) -> None:
    drawn = Drawn(draw_chart(points, width=width, mark=symbols.point, symbols=symbols), symbols.point, symbols, width)
    assert drawn.labels == [point.labels for point in points]
    assert drawn.signs <= {symbols.low_end, symbols.interval, symbols.high_end}
    for point, mark, (low, high) in zip(points, drawn.marks, drawn.intervals, strict=True):
        assert abs(mark - drawn.column(point.value)) <= 0.5
        assert abs(low - drawn.column(point.value if point.low is None else point.low)) <= 0.5
        assert abs(high - drawn.column(point.value if point.high is None else point.high)) <= 0.5


@given(evaluations(NUMBERS), st.integers(20, 120), st.sampled_from([UNICODE, ASCII]))
def test_any_numbers_fit(points: list[Point], width: int, symbols: Symbols) -> None:
    lines = draw_chart(points, width=width, mark=symbols.point, symbols=symbols)
    assert len(lines) == len(points) + 1
    assert max(map(len, lines[:-1])) <= width
    assert not any(word in "".join(lines).lower() for word in ("nan", "inf", "none"))


def test_a_chart_by_hand() -> None:
    """0.0 to 0.4 on 17 columns: a column for each 0.025."""
    points = [Point(0, 0.1, 0.0, 0.2), Point(10, 0.2), Point(200, 0.4, 0.3, 0.4)]
    assert draw_chart(points, width=22, mark="●", symbols=UNICODE) == [
        "  0  ├───●───┤",
        " 10          ●",
        "200              ├───●",
        "     0             0.4",
    ]
    assert draw_chart([Point(0, 0.5)], width=12, mark="o", symbols=ASCII) == ["0      o", "     0.5"]


def test_nothing_to_draw_and_nowhere_to_draw() -> None:
    assert draw_chart([], width=80, mark="o", symbols=ASCII) == []
    assert draw_chart([Point(0, 1.0)], width=10, mark="o", symbols=ASCII) == []


@given(st.lists(NUMBERS, min_size=1, max_size=30), st.sampled_from([UNICODE, ASCII]))
@example([0.0, 5e-324], UNICODE)
@example([-1.7e308, 1.7e308], UNICODE)
def test_a_sparkline_rises_where_the_numbers_do(values: list[float], symbols: Symbols) -> None:
    levels = [symbols.levels.index(sign) for sign in sparkline(values, symbols)]
    assert len(levels) == len(values)
    for one, other in zip(values, levels, strict=True):
        assert all(level >= other for value, level in zip(values, levels, strict=True) if value > one)
    if min(values) < max(values):
        assert levels[values.index(max(values))] == 7
        assert levels[values.index(min(values))] == 0
    else:
        assert len(set(levels)) == 1


@pytest.mark.parametrize(
    ("encoding", "expected"), [("utf-8", UNICODE), ("ascii", ASCII), ("latin-1", ASCII), (None, UNICODE)]
)
def test_signs_that_the_encoding_has(encoding: str | None, expected: Symbols) -> None:
    class Stream:
        pass

    stream = Stream()
    stream.encoding = encoding
    assert symbols_for(stream) is expected
    for value in vars(expected).values():
        assert value.encode(encoding or "utf-8")
    assert encodable("λ=½", stream).encode(encoding or "utf-8")


def test_every_sign_has_a_plain_one_of_the_same_width() -> None:
    for name, value in vars(ASCII).items():
        assert value.isascii()
        assert len(value) == len(getattr(UNICODE, name)) or name == "to"
