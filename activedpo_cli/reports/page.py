"""The parts of a page, and the page made of them: one HTML file that asks nothing of the network and runs no script.

On top stands a summary: the message as heading, what somebody wants to know first, and the command to type next.

Every text passes through autoescaping and through `display_text`, so that what models wrote stays text.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from activedpo_cli.base.display import display_text
from activedpo_cli.reports.dark import with_dark_colours
from activedpo_cli.reports.plot import Plot, panel_in_words

_TOGETHER = re.compile(r"\[[^\]]{1,40}\]|\([^)]{1,24}\)|\d %")
LONGEST_OPEN_TABLE = 40
"""Rows; a longer table is folded, so that the page can be read in one go."""
MOST_OPEN = 8
"""Panels of a figure, or sentences about one run each; more of them are folded away."""


@dataclass(frozen=True)
class Answer:
    """What the summary says to a question: sentences, and what to type, a line for each command."""

    question: str
    sentences: list[str]
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a reader learns in ten seconds: the message in a sentence, and the answers to what is asked first."""

    message: str
    answers: list[Answer]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts; columns in which nothing was measured are left out by whoever makes it."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    is_folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Texts of models beside each other: what they answer to, and a heading and text for each."""

    title: str
    prompt: str
    texts: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: sentences, figures, tables and texts of models; `anchor` is its name in links.

    `run_sentences` are about one run each, and fold away where they are many. A section `is_folded` whole where few readers
    want its figures and tables; its sentences stay.
    """

    anchor: str
    title: str
    sentences: list[str] = field(default_factory=list)
    run_sentences: list[str] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    is_folded: bool = False


def table(title: str, columns: list[str], rows: list[list[str]], *, is_folded: bool = False) -> Table:
    """A table without the columns in which every cell is empty; a long one is folded in any case."""
    kept = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    return Table(
        title=title,
        columns=[columns[place] for place in kept],
        rows=[[row[place] for place in kept] for row in rows],
        is_folded=is_folded or len(rows) > LONGEST_OPEN_TABLE,
    )


def render_page(
    title: str,
    summary: Summary,
    runs: Sequence[str],
    sections: Sequence[Section],
    figures: Mapping[str, Sequence[bytes]],
) -> str:
    """The page with its figures inside, given by name as an SVG for each panel; `runs` are sentences about one run each."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("activedpo_cli", "reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"kept_together": kept_together, "as_sentence": as_sentence, "words": words}
    return environment.get_template("page.html.jinja").render(
        title=title,
        summary=summary,
        runs=runs,
        sections=sections,
        pictures={plot.name: _pictures(plot, figures) for section in sections for plot in section.plots},
        most_open=MOST_OPEN,
    )


def _pictures(plot: Plot, figures: Mapping[str, Sequence[bytes]]) -> list[dict[str, str]]:
    """Address and description of the picture of each panel."""
    panels = [panel_in_words(panel) for panel in plot.panels] or [""]
    return [
        {
            "address": "data:image/svg+xml;base64," + base64.b64encode(with_dark_colours(svg)).decode(),
            "words": f"{plot.alternative} {words}".strip(),
        }
        for svg, words in zip(figures[plot.name], panels, strict=True)
    ]


def words(command: str) -> list[tuple[str, str]]:
    """The words of commands, each with the white space behind it, so that lines are broken between words alone."""
    return re.findall(r"(\S+)(\s*)", command)


def as_sentence(text: str) -> str:
    """A text that ends as sentences do."""
    return text if text[-1:] in "?!." else f"{text}."


def kept_together(cell: str) -> str:
    """A cell of a table in which short brackets, such as an interval's, and a unit with its number stand in one line."""
    return _TOGETHER.sub(lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), cell)


def _harmless(value: Any) -> Any:
    """Texts as they may be shown; what a macro of the template made, the only markup there is, consists of such."""
    from markupsafe import Markup

    return display_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value
