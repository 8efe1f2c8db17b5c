"""Titles stand where the library puts them by itself, also where that takes it less time."""

import pytest

from activedpo_cli.reports import drawing
from activedpo_cli.reports.plot import Panel, Plot, Series

HEIGHTS = {
    "plain": [[0.2, 0.7, -0.1], [12.0, 40.0, 99.0]],
    "powers of ten": [[2e-6, 5e-6, 3e-6], [1e7, 3e7, 4e7]],
    "a part that all share": [[1000.001, 1000.002, 1000.003]],
}


@pytest.mark.parametrize("has_one_scale", [False, True])
@pytest.mark.parametrize("heights", HEIGHTS)
def test_titles_avoid_powers_of_ten(heights: str, has_one_scale: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    panels = [
        Panel(
            title="Reward",
            x_label="labels",
            y_label="mean",
            series=[Series(label="", x=[0.0, 1.0, 2.0], y=list(values), sources=[])],
        )
        for values in HEIGHTS[heights]
    ]
    plot = Plot(name="", title="", caption="", alternative="", panels=panels, has_one_scale=has_one_scale)
    found = drawing.draw(plot, ["svg"])
    monkeypatch.setattr(drawing, "_place_title", lambda axes: None)
    assert drawing.draw(plot, ["svg"]) == found
