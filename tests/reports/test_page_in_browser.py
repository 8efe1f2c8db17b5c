"""The pages in a real browser: without JavaScript, on a telephone, in the dark, by keys, and for those who hear them."""

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from label_page import chromium

from activedpo_cli.reports.drawing import PALETTE, draw, draw_panels
from activedpo_cli.reports.page import Answer, Sample, Section, Summary, render_page, table
from activedpo_cli.reports.plot import Panel, Plot, Series

pytestmark = pytest.mark.whole

LONG = "a-name-without-any-blank-" * 8


def page_of_everything() -> str:
    """A page with every part that there is, among them what is wide and long."""
    series = [
        Series(label=name, x=[0, 10], y=[0.1, 0.2 * place], low=[0, 0], high=[1, 1], sources=[], colour=place)
        for place, name in enumerate(("activedpo", "random"))
    ]
    panel = Panel(title="by the rule", x_label="labels spent", y_label="mean reward", series=series)
    plots = [
        Plot(
            name="one",
            title="One panel",
            message="It says 0.5",
            caption="How to read it.",
            alternative="One.",
            panels=[panel],
        ),
        Plot(name="two", title="Two panels", caption=LONG, alternative="Two.", panels=[panel, panel]),
    ]
    wide = table("A wide table", ["arm", *(f"a long heading {place}" for place in range(12))], [["x"] * 13, ["y"] * 13])
    folded = table("A folded table", ["arm"], [["x"]], is_folded=True)
    sample = Sample(title="p000001", prompt="a prompt " * 400, texts=[("initial model", LONG), ("last", "b\n" * 90)])
    sections = [
        Section(anchor="a", title="First", sentences=["Text."], plots=plots, tables=[wide, folded], samples=[sample]),
        Section(anchor="b", title="Second", is_folded=True, plots=[], tables=[wide]),
    ]
    summary = Summary(
        message="After 10 labels reward is higher",
        answers=[
            Answer("What was run", ["One run", LONG]),
            Answer("What next", ["More"], f"activedpo run --run {LONG}\nactivedpo report 'my run'"),
        ],
    )
    pictures = {plot.name: draw_panels(plot, draw(plot, ["svg"])["svg"]) for plot in plots}
    return render_page("activedpo report: a", summary, ["one run", f"another {LONG}"], sections, pictures)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page_of_everything(), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, address: str, scheme: str) -> None:
    pytest.importorskip("axe_core_python")
    axe = (files("axe_core_python") / "axe.min.js").read_text()
    width = 360 if scheme == "dark" else 1280
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    page.evaluate(axe)
    found = page.evaluate("axe.run().then(found => found.violations)")
    context.close()
    assert not [(one["id"], one["impact"], [node["html"][:200] for node in one["nodes"]]) for one in found]


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_and_needs_no_script_and_no_network(browser: Any, address: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, java_script_enabled=False)
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(address)
    assert page.get_by_role("heading", level=1).inner_text() == "After 10 labels reward is higher"
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert not complaints
    context.close()
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    tops = page.evaluate(
        "[...document.querySelectorAll('#figure-two img')].map(image => image.getBoundingClientRect().top)"
    )
    assert (tops[0] == tops[1]) == (width == 1280), "panels are under each other where there is no room beside"
    context.close()


@pytest.mark.parametrize(("scheme", "ground"), [("light", (255, 255, 255)), ("dark", (29, 32, 38))])
def test_figures_are_as_dark_as_the_page(browser: Any, address: str, scheme: str, ground: tuple[int, ...]) -> None:
    import io

    import numpy as np
    from matplotlib.image import imread

    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(address)
    picture = page.locator("#figure-one img").screenshot()
    context.close()
    pixels = (imread(io.BytesIO(picture))[..., :3] * 255).round().astype(int)
    assert tuple(pixels[1, 1]) == ground
    blue = tuple(int(PALETTE[0][place : place + 2], 16) for place in (1, 3, 5))
    has_light_blue = bool((np.abs(pixels - blue).max(axis=-1) < 4).any())
    assert has_light_blue == (scheme == "light")


def test_every_part_is_reached_and_opened_by_keys(browser: Any, address: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    page.goto(address)
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.tagName + ' ' + document.activeElement.textContent.trim().slice(0, 40)"
            )
        )
        if reached[-1].startswith("SUMMARY A folded table"):
            page.keyboard.press("Enter")
    assert page.evaluate("[...document.querySelectorAll('.table details')].map(part => part.open)")[0]
    kinds = {re.split(r"\s", words)[0] for words in reached}
    assert {"A", "SUMMARY", "DIV", "PRE"} <= kinds
    context.close()
