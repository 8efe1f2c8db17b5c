"""Links between pages lead somewhere, long pages begin with their contents, and README is short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "runs/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
LONG = 200
"""Lines of a page, about eight screens, from which on it needs a list of its contents."""


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def headings(page: Path, least: int = 1) -> list[str]:
    return re.findall(rf"^#{{{least},6}} (.+)$", prose(page), re.MULTILINE)


def anchor(heading: str) -> str:
    """What GitHub makes of a heading: lower case, spaces as hyphens, no punctuation."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_something(page: Path) -> None:
    text = re.sub(r"(?<!`)`[^`\n]+`(?!`)", "", prose(page))
    for target in ("".join(match) for match in LINK.findall(text)):
        if target.startswith(("http:", "https:")):
            continue
        path, _, wanted = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if wanted:
            assert wanted in map(anchor, headings(linked)), target


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.read_text(encoding="utf-8").count("\n") > LONG],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_a_long_page_begins_with_all_its_sections(page: Path) -> None:
    listed = re.search(r"^\*\*Contents\*\*:.*?\n\n", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert listed, f"{page.name} has no line **Contents**"
    sections = re.findall(r"^## (.+)$", prose(page), re.MULTILINE)
    assert re.findall(r"\]\(#([^)]+)\)", listed[0]) == list(map(anchor, sections))


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
