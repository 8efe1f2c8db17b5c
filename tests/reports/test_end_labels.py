"""Names at the ends of lines do not overlap and stay as near as they can; figures follow a dark page."""

import itertools
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.reports.dark import with_dark_colours
from activedpo_cli.reports.drawing import PALETTE, draw, draw_panels
from activedpo_cli.reports.end_labels import in_few_lines, spread
from activedpo_cli.reports.plot import Panel, Plot, Series, panel_in_words

STEP = 0.25


def lines(*labels: str, scale: float = 1.0) -> Panel:
    series = [
        Series(label=label, x=[0, 10], y=[0, scale * place], sources=[], colour=place)
        for place, label in enumerate(labels)
    ]
    return Panel(title="by the rule", x_label="labels spent", y_label="", series=series)


def plot(*panels: Panel, has_one_scale: bool = False) -> Plot:
    return Plot(name="p", title="", caption="", alternative="", panels=[*panels], has_one_scale=has_one_scale)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=3))
def test_names_are_as_near_to_their_lines_as_their_heights_allow(wanted: list[float]) -> None:
    """Against the best of all places on a fine grid."""
    found = spread(wanted, [STEP] * len(wanted))
    ordered = sorted(found)
    assert ordered[0] >= STEP / 2 - 1e-9
    assert ordered[-1] <= 1 - STEP / 2 + 1e-9
    assert all(second - first >= STEP - 1e-9 for first, second in itertools.pairwise(ordered))
    assert [wanted[place] for place in sorted(range(len(wanted)), key=lambda at: found[at])] == sorted(wanted)
    grid = [STEP / 2 + place / 24 for place in range(19)]
    candidates = (
        places
        for places in itertools.product(grid, repeat=len(wanted))
        if all(abs(one - other) >= STEP - 1e-9 for one, other in itertools.combinations(places, 2))
    )
    best = min(sum((at - to) ** 2 for at, to in zip(places, wanted, strict=True)) for places in candidates)
    assert sum((at - to) ** 2 for at, to in zip(found, wanted, strict=True)) <= best + 1e-9


def test_long_names_are_broken_and_cut() -> None:
    assert in_few_lines("activedpo (10 seeds)") == "activedpo (10\nseeds)"
    assert in_few_lines("x" * 60).count("\n") == 1
    assert in_few_lines("x" * 60).endswith("…")
    assert in_few_lines("") == ""


@pytest.mark.parametrize(("number", "has_legend"), [(1, False), (2, False), (12, False), (20, True)])
def test_names_stand_at_the_lines_unless_they_are_too_many(
    number: int, has_legend: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    seen: list[Figure] = []
    paint = Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: (seen.append(figure), paint(figure, renderer)))
    names = [f"run {place}" for place in range(number)]
    draw(plot(lines(*names)), ["svg"])
    (axes,) = seen[0].axes
    assert bool(seen[0].legends) == has_legend
    assert [text.get_text() for text in axes.texts] == ([] if has_legend or number == 1 else names)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_each_panel_is_a_picture_and_shares_its_scale_where_they_all_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    seen: list[Figure] = []
    paint = Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: (seen.append(figure), paint(figure, renderer)))
    low, high = lines("a", "b"), lines("a", "b", scale=7.0)
    pictures = draw_panels(plot(low, high, has_one_scale=True), b"whole")
    assert len(pictures) == 2
    assert {figure.axes[0].get_ylim() for figure in seen} == {seen[-1].axes[0].get_ylim()}
    assert seen[-1].axes[0].get_ylim()[1] > 7
    assert draw_panels(plot(low), b"whole") == [b"whole"]
    assert draw_panels(plot(low, high), b"") == draw_panels(plot(low, high), b""), "the same bytes again"


def test_letters_are_as_large_whether_lines_are_named_or_not() -> None:
    """A page shows all panels equally wide, so a wider drawing would have smaller letters there."""

    def width(*names: str) -> bytes:
        return draw(plot(lines(*names)), ["svg"])["svg"].partition(b"<svg")[2].partition(b'viewBox="')[2].split()[2]

    assert width("a") == width("a", "b") == width("a", "a rather long name of a run")


def test_every_colour_of_a_figure_has_one_on_a_dark_page() -> None:
    """Blended colours of bands and boxes are written as a colour of the palette with an opacity."""
    names = [f"run {place}" for place in range(len(PALETTE))]
    boxes = replace(
        lines("picked"),
        kind="boxes",
        series=[
            Series(
                label="picked",
                x=[1],
                y=[2],
                low=[0],
                high=[4],
                lower_quartile=[1],
                upper_quartile=[3],
                sources=[],
                is_background=True,
            )
        ],
    )
    drawn = draw(plot(replace(lines(*names), level=0.5), boxes, replace(lines(*names), kind="bars")), ["svg"])["svg"]
    used = set(re.findall(rb"(?:fill|stroke): (#[0-9a-f]{6})", drawn))
    style = with_dark_colours(drawn).partition(b"<style>")[2].partition(b"</style>")[0]
    assert {colour for colour in used if b'"fill: ' + colour not in style} == set()
    assert b"prefers-color-scheme: dark" in style
    assert with_dark_colours(b"<svg/>") == b"<svg/>"


def test_a_panel_is_described_by_where_its_lines_begin_and_end() -> None:
    assert panel_in_words(lines("a", "b")) == (
        "by the rule: a, 0.000 at 0 to 0.000 at 10 (labels spent). b, 0.000 at 0 to 1.000 at 10 (labels spent)."
    )
    many = panel_in_words(lines(*(f"run {place}" for place in range(20))))
    assert many.endswith("And 8 more.")
