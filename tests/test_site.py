"""The site of the documentation is built without a warning, has every setting and command, and can be read by everybody."""

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_page import Page
from test_help import COMMANDS

from activedpo_cli.base.settings import setting_keys

pytestmark = [pytest.mark.whole, pytest.mark.timeout(600)]
pytest.importorskip("material", reason="pip install mkdocs-material")

ROOT = Path(__file__).parents[1]
CHROMIUM = Path("/usr/bin/chromium")
LONG = 27_000
"""Letters on a page of about eight screens of 1,280 × 800 and more, its navigation included."""
LOOKED_AT = ("index.html", "tutorial/first-run.html", "results.html", "reference/settings.html")


def build(root: Path, site: Path) -> "subprocess.CompletedProcess[str]":
    words = ["build", "--strict", "--config-file", root / "docs/site/mkdocs.yml", "--site-dir", site]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", *words], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT, folder)
    assert built.returncode == 0, built.stderr
    return folder


def test_the_reference_has_every_setting_and_every_command(site: Path) -> None:
    settings = (site / "reference/settings.html").read_text(encoding="utf-8")
    assert [key for key in [*setting_keys(), "seed"] if f"<code>{key}</code>" not in settings] == []
    page = Page(site / "reference/commands.html")
    headings = {row["id"] for tag, row in page.elements if tag in ("h2", "h3") and "id" in row}
    assert {name.replace(" ", "-") for name in COMMANDS} <= headings
    shown = (site / "reference/commands.html").read_text(encoding="utf-8")
    flags = {
        flag for command in COMMANDS.values() for option in command.params for flag in option.opts if flag[:2] == "--"
    }
    assert [flag for flag in sorted(flags) if flag not in shown] == []


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Page(path)
        loaded = [row.get("src", "") for tag in ("script", "img", "iframe") for row in page.all(tag)]
        loaded += [row.get("href", "") for row in page.all("link") if row.get("rel") != "canonical"]
        assert [name for name in loaded if name.startswith(("http:", "https:", "//"))] == [], path


def test_long_pages_have_a_list_of_their_contents(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Page(path)
        sections = [row["id"] for tag, row in page.elements if tag == "h2" and "id" in row]
        linked = {row.get("href") for row in page.all("a")}
        assert {f"#{name}" for name in sections} <= linked, path
        below = [row["id"] for tag, row in page.elements if tag == "h3" and "id" in row]
        assert len("".join(page.pieces)) < LONG or len({f"#{name}" for name in [*sections, *below]} & linked) > 2, path


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    """A copy of the documentation in which one page links to a section that there is not."""
    for name in ("docs", "activedpo_cli", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs").unlink()
    (tmp_path / "docs").mkdir()
    for path in (ROOT / "docs").iterdir():
        (tmp_path / "docs" / path.name).symlink_to(path)
    (tmp_path / "docs/files.md").unlink()
    (tmp_path / "docs/files.md").write_text("# Files\n\n[nowhere](models.md#no-such-section)\n", encoding="utf-8")
    (tmp_path / "docs/site").unlink()
    (tmp_path / "docs/site").mkdir()
    for path in (ROOT / "docs/site").glob("*.*"):
        (tmp_path / "docs/site" / path.name).write_bytes(path.read_bytes())
    built = build(tmp_path, tmp_path / "built")
    assert built.returncode == 1
    assert "no-such-section" in built.stderr


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium")
@pytest.mark.parametrize(("width", "colours"), [(360, "light"), (1280, "light"), (1280, "dark")])
def test_axe_finds_nothing_serious(address: str, width: int, colours: Any) -> None:
    from axe_core_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        for name in LOOKED_AT:
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=colours)
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(f"{address}/{name}", wait_until="networkidle")
            found = [row for row in Axe().run(page)["violations"] if row["impact"] in ("serious", "critical")]
            assert [(row["id"], row["nodes"][0]["html"]) for row in found] == [], name
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            wide = page.evaluate(
                "[...document.querySelectorAll('.md-typeset__scrollwrap')]"
                ".filter(box => box.scrollWidth > box.clientWidth).map(box => box.tabIndex)"
            )
            assert set(wide) <= {0}, (name, "a wide table can be scrolled by keys")
            assert wide or (width, name) != (360, "results.html")
            assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == [], name
            page.close()
        browser.close()
