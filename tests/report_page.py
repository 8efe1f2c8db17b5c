"""Look at a report from outside: its page as a browser would parse it, and its numbers."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest


class Page(HTMLParser):
    """Elements with their attributes, the text between them, and the cells of every table row."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.pieces: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)
        if self.elements and self.elements[-1][0] in ("td", "th") and self.rows[-1]:
            self.rows[-1][-1] += data.strip("\n")

    @property
    def text(self) -> str:
        """All text of the page."""
        return "".join(self.pieces)

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def draw_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures without a drawing, where a test is about something else; they take most of the time."""
    blank = {"png": b"\x89PNG", "svg": b"<svg/>"}
    monkeypatch.setattr("activedpo_cli.reports.drawing.draw", lambda plot: blank)


def facts(folder: Path) -> dict[str, Any]:
    """`report.json`."""
    return json.loads((folder / "report.json").read_bytes())


def panels(folder: Path, name: str) -> list[dict[str, Any]]:
    """The panels of a figure."""
    return facts(folder)["figures"][name]["panels"]


def series(folder: Path, name: str, panel: int = 0) -> dict[str, dict[str, Any]]:
    """The series of a panel, by label."""
    return {row["label"]: row for row in panels(folder, name)[panel]["series"]}
