"""Look at a report from outside: its page as a browser would parse it, and its numbers."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from activedpo_cli.reports.run_data import RunData

OWN_ELEMENTS = (
    "html head meta title style body header h1 ul li nav a main section h2 h3 p figure img figcaption "
    "div details summary table caption thead tbody tr th td article pre code span"
)


def made_up_run(method: str, seed: int, name: str = "", **more: Any) -> RunData:
    """A run of a preset by a method, of which nothing is known but its seed and what `more` says."""
    known = {
        "name": name or f"{method}-{seed}",
        "preset": "tiny",
        "made_by": "",
        "model": "m",
        "model_digest": "d",
        "prompts_digest": str(seed),
        "seed": seed,
        "methods": [method],
        "settings": {"seed": [seed]},
        "stages": [],
        "unfinished": [],
        "evaluations": [],
    }
    return RunData(**known | more)


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
        data = data.replace("\N{NO-BREAK SPACE}", " ")
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
    monkeypatch.setattr("activedpo_cli.reports.drawing.draw", lambda plot, kinds=(), limits=None: blank)


def facts(folder: Path) -> dict[str, Any]:
    """`report.json`."""
    return json.loads((folder / "report.json").read_bytes())


def panels(folder: Path, name: str) -> list[dict[str, Any]]:
    """The panels of a figure."""
    return facts(folder)["figures"][name]["panels"]


def series(folder: Path, name: str, panel: int = 0) -> dict[str, dict[str, Any]]:
    """The series of a panel, by label."""
    return {row["label"]: row for row in panels(folder, name)[panel]["series"]}


def check_inert(path: Path) -> Page:
    """Only the page's own elements and attributes, nothing that loads or runs, no bare control characters."""
    page = Page(path)
    assert {tag for tag, _ in page.elements} <= {*OWN_ELEMENTS.split()}
    assert len(page.all("style")) == 1
    assert len(page.all("meta")) == 5
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset", "action")]
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in page.all("img"))
    assert all(link["href"].startswith("#") for link in page.all("a"))
    policy = [row["content"] for row in page.all("meta") if row.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    (style,) = re.findall(r"<style>(.*?)</style>", path.read_text(encoding="utf-8"), re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]", page.text)
    return page
