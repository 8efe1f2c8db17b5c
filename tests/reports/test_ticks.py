"""Where the ticks of an axis stand."""

import pytest
from matplotlib.figure import Figure

from activedpo_cli.reports.drawing import _set_ticks
from activedpo_cli.reports.plot import Panel, Series


def ticks_for(places: list[float]) -> list[tuple[float, str]]:
    panel = Panel(
        title="", x_label="", y_label="", series=[Series(label="", x=places, y=[0.0] * len(places), sources=[])]
    )
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot(places, [0.0] * len(places))
    _set_ticks(axes, panel)
    figure.canvas.draw()
    return [(float(tick.get_position()[0]), tick.get_text()) for tick in axes.get_xticklabels()]


def test_few_whole_numbers_have_a_tick_each() -> None:
    assert ticks_for([0.0, 30.0, 60.0]) == [(0.0, "0"), (30.0, "30"), (60.0, "60")]


@pytest.mark.parametrize("places", [[0.0, 0.2, 0.7], [0.0, 6.3, 15.1]])
def test_a_tick_says_where_it_stands(places: list[float]) -> None:
    """Rounded to whole numbers 0.7 would be called 1, and 6.3 would be called 6."""
    shown = ticks_for(places)
    assert len(shown) >= 3
    for place, text in shown:
        assert float(text.replace("\N{MINUS SIGN}", "-")) == pytest.approx(place)
