"""What mkdocs calls while it builds the site: pages that are no files of their own, and links as the site has them.

Pages are written for the repository: they link to each other, to folders and to source files by paths that hold there.
README is the first page, folders get a list of what is in them, and other files that pages link to are copied.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
sys.path.insert(0, str(Path(__file__).parent))

from reference import PAGES  # noqa: E402

BROUGHT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "activedpo_cli/tiny/assets/MODEL_CARD.md": "model-card.md",
}
"""Pages that do not lie in `docs/`, and what they are called on the site."""
ALONE = "---\nhide: [navigation]\n---\n"
"""Before a page that has no other page beside it."""
LISTED = {
    "docs/decisions": ("Decisions", "What was decided about the code, why, and what else there was."),
    "docs/results": (
        "The measured files",
        "Each experiment behind the tables: its specification, rows, summary and figures.",
    ),
    "docs/experiments": ("The experiments' files", "Specifications and scripts behind the pages on results."),
}
"""Folders that pages link to; the site has a list of each."""
CODE = re.compile(r"(^ *```.*?^ *```|(?<!`)`[^`\n]+`(?!`))", re.DOTALL | re.MULTILINE)
SEARCH = 'data-md-component="search" role="dialog"'
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
ELSEWHERE = re.compile(r"[a-z]+:|#|/")


def on_config(config: MkDocsConfig) -> None:
    """Name every decision in the navigation."""
    listed = ["decisions/index.md", *(f"decisions/{path.name}" for path in sorted((DOCS / "decisions").glob("*.md")))]
    for part in config.nav or ():
        for place in next(iter(part.values())):
            if isinstance(place, dict) and place.get("Decisions") == "decisions/index.md":
                place["Decisions"] = listed


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what is no file of `docs/`."""
    for path, name in BROUGHT.items():
        head = ALONE if name == "index.md" else ""
        files.append(File.generated(config, name, content=head + (ROOT / path).read_text(encoding="utf-8")))
    for name, page in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    for folder in LISTED:
        files.append(File.generated(config, _on_site(folder), content=_list_of(folder)))
    for name in ("site.css", "site.js"):
        content = (DOCS / "site" / name).read_text(encoding="utf-8")
        files.append(File.generated(config, f"assets/{name}", content=content))
    for path in sorted({target for target in _targets() if (ROOT / target).is_file()}):
        if files.get_file_from_path(_on_site(path)) is None:
            files.append(File.generated(config, _on_site(path), abs_src_path=str(ROOT / path)))


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """The page with its links as the site has them."""
    own = page.file.src_uri
    return _with_links(markdown, lambda target: relpath(_on_site(target), str(PurePosixPath(own).parent)), _place(own))


def on_post_page(output: str, **_: Any) -> str:
    """The page with a name for its search, which the theme leaves without one."""
    return output.replace(SEARCH, f'{SEARCH} aria-label="Search"')


def _place(name: str) -> str:
    """Where a page of the site lies in the repository."""
    return next((path for path, brought in BROUGHT.items() if brought == name), f"docs/{name}")


def _on_site(path: str) -> str:
    """Where something of the repository lies on the site."""
    if path in BROUGHT:
        return BROUGHT[path]
    if (ROOT / path).is_dir():
        listed = next(folder for folder in LISTED if f"{path}/".startswith(f"{folder}/"))
        return f"{listed.removeprefix('docs/')}/index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}"


def _with_links(markdown: str, named: Any, place: str) -> str:
    """The text with every link within the repository as `named` has it, code left as it is."""

    def renamed(match: re.Match[str]) -> str:
        if ELSEWHERE.match(match[2]):
            return match[0]
        target = normpath(str(PurePosixPath(place).parent / match[2]))
        return f"{match[1]}{named(target)}{match[3] or ''}{match[4]}"

    parts = CODE.split(markdown)
    return "".join(part if index % 2 else LINK.sub(renamed, part) for index, part in enumerate(parts))


def _targets() -> Iterator[str]:
    """What pages link to in the repository."""
    found: list[str] = []
    for path in [*(ROOT / name for name in BROUGHT), *DOCS.rglob("*.md")]:
        text, place = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
        _with_links(text, lambda target: found.append(target) or target, place)
    yield from (target for target in found if not (target.startswith("docs/") and target.endswith((".md", ".png"))))


def _list_of(folder: str) -> str:
    """A page that lists what is in a folder."""
    title, meaning = LISTED[folder]
    return "\n".join([f"# {title}", "", meaning, "", *_entries(ROOT / folder)]) + "\n"


def _entries(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if path.suffix == ".md":
            yield f"- [{path.read_text(encoding='utf-8').partition(chr(10))[0].removeprefix('# ')}]({path.name})"
        elif path.is_dir() and (path / "experiment.json").is_file():
            title = json.loads((path / "experiment.json").read_text(encoding="utf-8"))["title"]
            yield f"- **{path.name}**: {title}. {_links_to(path, folder)}"
        elif path.is_dir() and path.name != "__pycache__":
            yield f"- **{path.name}**: {_links_to(path, folder)}"
        elif path.suffix == ".py":
            yield f"- [{path.name}]({path.name})"


def _links_to(folder: Path, start: Path) -> str:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    return ", ".join(f"[{path.relative_to(folder)}]({path.relative_to(start)})" for path in files)
