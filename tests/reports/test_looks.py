"""Lines of one figure can be told apart, tables fit the page, and headlines end as sentences do."""

import html
import re

from activedpo_cli.reports.drawing import PALETTE, _look
from activedpo_cli.reports.page import Answer, Section, Summary, render_page, table
from activedpo_cli.reports.plot import Series


def test_twice_as_many_lines_as_colours_look_different() -> None:
    looks = [_look(Series(label="", x=[], y=[], sources=[], colour=place)) for place in range(2 * len(PALETTE))]
    for one in range(len(looks)):
        for other in range(one):
            same_colour = looks[one]["color"] == looks[other]["color"]
            assert not same_colour or looks[one]["marker"] != looks[other]["marker"]
            assert not same_colour or looks[one]["linestyle"] != looks[other]["linestyle"]


def style_of(page: str, selector: str) -> str:
    """The declarations of the rules for exactly this selector."""
    rules = re.findall(r"^([^{}@\n]+) \{ ([^{}]*) \}", page, re.MULTILINE)
    return " ".join(body for names, body in rules if selector in [name.strip() for name in names.split(",")])


def test_a_wide_table_is_broken_between_words_and_scrolls_in_its_own_box() -> None:
    wide = table("wide", ["arm", "minus the baseline at the end"], [["aplp-certainty", "0.1 [0.0, 0.2]"]])
    page = render_page(
        "title", Summary(message="", answers=[]), [], [Section(anchor="a", title="A", tables=[wide])], {}
    )
    assert re.search(r'<div class="scroll" tabindex="0" [^>]*>\s*<table>', page)
    assert "overflow-x: auto" in style_of(page, ".scroll")
    assert "nowrap" not in style_of(page, "td") + style_of(page, "th") + style_of(page, "table")
    assert "nowrap" in style_of(page, "td:first-child")


def test_sentences_of_the_summary_end_as_sentences_do() -> None:
    summary = Summary(message="M", answers=[Answer("Q", ["Which is best?", "Reward 0.5"])])
    page = render_page("title", summary, ["one run?", "another"], [], {})
    assert re.findall(r"<p>(.*?)</p>", page) == ["Which is best?", "Reward 0.5."]
    assert re.findall(r"<li>(.*?)</li>", page) == ["one run?", "another."]


def test_commands_of_the_summary_are_in_the_page_as_they_are_typed() -> None:
    command = "activedpo run --run 'my run' --set a=1\nactivedpo report 'my run'"
    page = render_page("title", Summary(message="M", answers=[Answer("Q", [], command)]), [], [], {})
    (shown,) = re.findall(r"<code>(.*?)</code>", page, re.DOTALL)
    assert html.unescape(re.sub(r"</?span>", "", shown)) == command
