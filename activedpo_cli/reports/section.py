"""The parts of the page before they are drawn."""

from dataclasses import dataclass, field

from activedpo_cli.reports.plot import Plot

LONGEST_OPEN_TABLE = 40
"""Rows; a longer table is folded, so that the page can be read in one go."""


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

    `run_sentences` are about one run each, and fold away where they are many.
    """

    anchor: str
    title: str
    sentences: list[str] = field(default_factory=list)
    run_sentences: list[str] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def table(title: str, columns: list[str], rows: list[list[str]], *, is_folded: bool = False) -> Table:
    """A table without the columns in which every cell is empty; a long one is folded in any case."""
    kept = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    return Table(
        title=title,
        columns=[columns[place] for place in kept],
        rows=[[row[place] for place in kept] for row in rows],
        is_folded=is_folded or len(rows) > LONGEST_OPEN_TABLE,
    )
