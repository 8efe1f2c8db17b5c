"""The chart in text, read back: every value and interval stands where the axes' own numbers say."""

from decimal import Decimal

import pytest
from drawn_chart import Drawn
from hypothesis import example, given
from hypothesis import strategies as st

from activedpo_cli.cli.axis import round_ticks, tick_labels
from activedpo_cli.cli.chart import Point, draw_chart, sparkline
from activedpo_cli.cli.symbols import ASCII, UNICODE, Symbols, encodable, symbols_for

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-10, 10),
    st.sampled_from([0.0, -0.0, 5e-324, 1e308, -1e308, 1e16, 1e16 + 2, 0.1, 0.30000000000000004]),
)


@st.composite
def evaluations(draw: st.DrawFn) -> list[Point]:
    labels = sorted(draw(st.sets(st.integers(0, 10**6), min_size=1, max_size=12)))
    points = []
    for number in labels:
        low, value, high = sorted(draw(st.tuples(NUMBERS, NUMBERS, NUMBERS)))
        points.append(Point(number, value, low, high) if draw(st.booleans()) else Point(number, value))
    return points


@given(evaluations(), st.integers(40, 120), st.integers(5, 20), st.sampled_from([UNICODE, ASCII]))
def test_read_back(points: list[Point], width: int, height: int, symbols: Symbols) -> None:
    lines = draw_chart(points, width=width, height=height, mark=symbols.point, symbols=symbols)
    assert max(map(len, lines)) <= width
    assert len(lines) <= height + 2
    assert not any(word in "".join(lines).lower() for word in ("nan", "inf", "none"))
    drawn = Drawn(lines, symbols.point, symbols)
    assert {points[0].labels, points[-1].labels} == {min(drawn.named), max(drawn.named)}

    expected = [(drawn.column(point.labels), drawn.row(point.value)) for point in points]
    for column, row in expected:
        assert any(abs(c - column) <= 1 and abs(r - row) <= 1 for c, r in drawn.marks)
    for c, r in drawn.marks:
        assert any(abs(c - column) <= 1 and abs(r - row) <= 1 for column, row in expected)


@given(evaluations(), st.sampled_from([UNICODE, ASCII]))
def test_an_interval_reaches_from_its_low_to_its_high_end(points: list[Point], symbols: Symbols) -> None:
    """In charts of one point, where nothing else can be in its column."""
    for point in points:
        drawn = Drawn(
            draw_chart([point], width=80, height=13, mark=symbols.point, symbols=symbols), symbols.point, symbols
        )
        rows = sorted(row for _, row in drawn.filled)
        low, high = (point.value if end is None else end for end in (point.low, point.high))
        assert rows == list(range(rows[0], rows[-1] + 1)), "without a gap"
        assert abs(rows[0] - drawn.row(high)) <= 1
        assert abs(rows[-1] - drawn.row(low)) <= 1
        assert len(drawn.marks) == 1


def test_a_chart_by_hand() -> None:
    """0.0 to 0.4 on 13 rows, a row for each 0.033; 0 to 20 labels on 11 columns, a column for each 2."""
    points = [Point(0, 0.1, 0.0, 0.2), Point(10, 0.2), Point(20, 0.4, 0.3, 0.4)]
    assert draw_chart(points, width=18, height=13, mark="●", symbols=UNICODE) == [
        "0.4 ┤           ●",
        "    │           │",
        "    │           │",
        "0.3 ┤           ┴",
        "    │",
        "    │",
        "0.2 ┤ ┬    ●",
        "    │ │",
        "    │ │",
        "0.1 ┤ ●",
        "    │ │",
        "    │ │",
        "0.0 ┤ ┴",
        "    └─┬────┬────┬",
        "      0   10   20",
    ]


def test_nothing_to_draw_and_nowhere_to_draw() -> None:
    assert draw_chart([], width=80, height=13, mark="o", symbols=ASCII) == []
    assert draw_chart([Point(0, 1.0)], width=10, height=13, mark="o", symbols=ASCII) == []


@given(NUMBERS, NUMBERS, st.integers(2, 6))
def test_ticks_are_round_even_and_reach_over_the_numbers(one: float, other: float, most: int) -> None:
    low, high = sorted((one, other))
    ticks = round_ticks(low, high, most)
    assert 2 <= len(ticks) <= most + 1
    assert ticks[0] <= Decimal(repr(low))
    assert ticks[-1] >= Decimal(repr(high))
    steps = {after - before for before, after in zip(ticks, ticks[1:], strict=False)}
    assert len(steps) == 1
    assert steps.pop().normalize().as_tuple().digits in ((1,), (2,), (5,))
    labels = tick_labels(ticks)
    assert [Decimal(label) for label in labels] == ticks
    assert max(map(len, labels)) <= 20


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
