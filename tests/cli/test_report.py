"""`activedpo report`: where it looks, what it prints, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import done, refused, snapshot
from report_page import draw_quickly

HEAVY = ("torch", "matplotlib", "jinja2", "numpy", "transformers")
PROBE = """
import sys
from activedpo_cli.cli.app import app
try:
    app({words!r})
except SystemExit as end:
    assert not end.code, end.code
print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def _quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_quickly(monkeypatch)


def test_only_the_page_stands_on_stdout(finished: Path) -> None:
    first = done("report", finished)
    page = finished / "report" / "index.html"
    assert first.stdout == f"{page}\n"
    assert "report made" in first.stderr
    assert "after 8 labels, win rate" in first.stderr
    before = snapshot(finished)
    again = done("report", finished)
    assert again.stdout == first.stdout
    assert "up to date" in again.stderr
    assert done("report", "--run", finished).stdout == first.stdout, "as every other command takes it"
    assert snapshot(finished) == before


def test_json_and_silence(finished: Path) -> None:
    assert done("report", finished, "--quiet").output == ""
    found = json.loads(done("report", finished, "--json").stdout)
    assert found["state"] == "up to date"
    assert Path(found["page"]).is_file()
    assert all(Path(path).is_file() for path in found["figures"].values())
    assert json.loads(done("report", finished, "--json", "--force").stdout)["state"] == "done"


def test_an_answer_without_work_loads_nothing_heavy(finished: Path) -> None:
    done("report", finished, "--quiet")
    code = PROBE.format(words=["report", str(finished)], heavy=HEAVY)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "up to date" in ended.stderr
    assert ended.stderr.splitlines()[-1] == "[]"


def test_which_run_is_meant(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare name lies under `runs/`; without a name the environment decides, then `runs/default`."""
    runs = finished.parent / "runs"
    runs.mkdir()
    finished.rename(runs / "mine")
    monkeypatch.chdir(runs.parent)
    page = "report/index.html"
    assert done("report", "mine").stdout == f"runs/mine/{page}\n"
    monkeypatch.setenv("ACTIVEDPO_RUN", "mine")
    assert done("report").stdout == f"runs/mine/{page}\n"
    monkeypatch.delenv("ACTIVEDPO_RUN")
    assert "runs/default" in refused(4, "report")


def test_several_runs_lie_beside_each_other_in_the_first(finished: Path, new_run: Path) -> None:
    second = new_run.rename(new_run.parent / "second")
    message = refused(4, "report", finished, second)
    assert f"hint: activedpo generate --run {second} --iteration 1" in message
    done("generate", "--run", second, "--quiet")
    assert done("report", finished, second, "--quiet").output == ""
    assert (finished / "report-second" / "index.html").is_file()
    assert done("report", finished, second, "--output", finished.parent / "here").stdout.endswith("here/index.html\n")


def test_a_run_is_named_once(finished: Path) -> None:
    assert "named twice" in refused(2, "report", finished, finished.parent / "." / finished.name)


def test_the_folder_one_is_in_is_not_replaced(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "outer" / "here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    for output in (".", "..", here):
        assert "--output FOLDER" in refused(3, "report", finished, "--output", output)
    assert [path.name for path in here.parent.rglob("*")] == ["here"]
    assert Path.cwd() == here
    assert done("report", finished, "--output", "new").stdout == "new/index.html\n"
