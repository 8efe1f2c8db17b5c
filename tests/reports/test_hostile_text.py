"""Whatever models, prompts and names say, the page shows it and does nothing else."""

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import done, rows
from report_page import Page, check_inert, draw_quickly

from activedpo_cli.reports.drawing import draw
from activedpo_cli.reports.page import Answer, Sample, Section, Summary, Table, render_page
from activedpo_cli.reports.plot import Panel, Plot, Series

HOSTILE = [
    "<script>alert(1)</script>",
    "</style></pre><style>body{display:none}</style>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<!-- --><svg/onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; &amp; &#60;script&#62;",
    "<meta http-equiv=refresh content='0;url=https://example.com'>",
    "<a href='javascript:alert(1)'>press</a>",
    "$\\notaformula{$ ]]> <![CDATA[",
]
STEERING = "\x1b[2J\x1b]0;title\x07 \u202eevil\u2066 \x00 \u2028 \udc80 \x9b31m"
ALL = "\n".join([*HOSTILE, STEERING])
OWN_SVG_ELEMENTS = (
    "svg metadata RDF Work type title date format creator Agent defs style g path use clipPath rect"  # matplotlib's
)


def poison(path: Path, *fields: str) -> None:
    """Put the hostile text into some fields of every row of a file."""
    found = [row | dict.fromkeys(fields, ALL) for row in rows(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


def test_texts_of_models_and_prompts_stay_texts(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_quickly(monkeypatch)
    for path in finished.rglob("responses-*.jsonl"):
        poison(path, "text")
    poison(finished / "prompts.jsonl", "prompt")
    poison(finished / "iter-002" / "label" / "outcomes.jsonl", "oracle")
    done("report", finished)
    page = check_inert(finished / "report" / "index.html")
    for text in HOSTILE:
        assert page.text.count(text) >= 12  # 4 prompts, their prompt and two responses
    assert "\\x1b[2J\\x1b]0;title\\x07 \\u202eevil\\u2066 \\x00 \\u2028 \\udc80 \\x9b31m" in page.text


def test_every_text_of_the_page_is_escaped(tmp_path: Path) -> None:
    """Each place in the template where a text can stand."""
    series = [Series(label=ALL, x=[0, 1], y=[0, 1], sources=[ALL])]
    panel = Panel(title=ALL, x_label=ALL, y_label=ALL, series=series)
    plot = Plot(name="figure", title=ALL, caption=ALL, alternative=ALL, message=ALL, panels=[panel])
    summary = Summary(message=ALL, answers=[Answer(ALL, [ALL], ALL)])
    section = Section(
        anchor="anchor",
        title=ALL,
        sentences=[ALL],
        run_sentences=[ALL],
        plots=[plot],
        tables=[Table(title=ALL, columns=[ALL], rows=[[ALL]], is_folded=folded) for folded in (True, False)],
        samples=[Sample(title=ALL, prompt=ALL, texts=[(ALL, ALL)])],
    )
    path = tmp_path / "page.html"
    sections = [section, replace(section, anchor="folded", is_folded=True, samples=[])]
    path.write_bytes(render_page(ALL, summary, [ALL, ALL], sections, {"figure": [b"<svg/>"]}).encode())
    page = check_inert(path)
    # title 2, message 1, answer 3, runs 2, contents 2; of each section title 1, sentences 2, figure 3, tables 8; sample 4;
    # the folded one's summary 1
    assert page.text.count(HOSTILE[0]) == 10 + 2 * 14 + 4 + 1
    assert page.all("img")[0]["alt"].startswith(HOSTILE[0])


@pytest.mark.parametrize("text", [*HOSTILE, STEERING], ids=range(len(HOSTILE) + 1))
def test_figures_draw_texts_as_they_are(text: str) -> None:
    """In every place; the formula among them could not even be parsed as one."""
    lines = [Series(label=f"{text}{place}", x=[0, 1], y=[0, 1], sources=["a"], colour=place) for place in (0, 1)]
    plot = Plot(
        name="plot",
        title="",
        caption="",
        alternative="",
        panels=[Panel(title=text, x_label=text, y_label=text, series=lines)],
    )
    drawn = draw(plot)["svg"]
    root = ElementTree.fromstring(drawn)
    tags = {element.tag.rpartition("}")[2] for element in root.iter() if isinstance(element.tag, str)}
    assert tags <= {*OWN_SVG_ELEMENTS.split()}
    links = [value for element in root.iter() for name, value in element.attrib.items() if name.endswith("href")]
    assert links
    assert all(link.startswith("#") for link in links)


def test_a_formula_is_drawn_letter_by_letter() -> None:
    """One glyph for each character, dollar signs included."""
    drawn = {}
    for title in ("", "$x_1$"):
        plot = Plot(
            name="plot",
            title="",
            caption="",
            alternative="",
            panels=[
                Panel(title=title, x_label="", y_label="", series=[Series(label="a", x=[0, 1], y=[0, 1], sources=[])])
            ],
        )
        drawn[title] = ElementTree.fromstring(draw(plot)["svg"])
    glyphs = {
        title: sum(1 for use in root.iter() if use.tag.endswith("use") and "DejaVu" in str(use.attrib))
        for title, root in drawn.items()
    }
    assert glyphs["$x_1$"] - glyphs[""] == 5


def test_the_page_is_all_that_a_browser_needs(drawn_report: Path) -> None:
    check_inert(drawn_report / "index.html")
    text = (drawn_report / "index.html").read_text(encoding="utf-8")
    outside = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert "//" not in outside
    for image in Page(drawn_report / "index.html").all("img"):
        root = ElementTree.fromstring(base64.b64decode(image["src"].partition(",")[2]))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_a_persons_own_figure_settings_change_nothing_and_stay() -> None:
    import matplotlib

    panel = Panel(title="title", x_label="x", y_label="y", series=[Series(label="a", x=[0, 1], y=[0, 1], sources=[])])
    plot = Plot(name="plot", title="", caption="", alternative="", panels=[panel])
    expected = draw(plot)
    with matplotlib.rc_context(
        {"font.size": 23, "axes.grid": False, "axes.spines.left": False, "svg.fonttype": "none"}
    ):
        settings = dict(matplotlib.rcParams)
        assert draw(plot) == expected
        assert dict(matplotlib.rcParams) == settings
