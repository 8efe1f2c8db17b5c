"""What `run` leaves on stdout when all is done, for people, for programs, and where something is missing."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import STAGES, activedpo, done, on
from drawn_chart import Drawn

from activedpo_cli.base.errors import BusyError
from activedpo_cli.cli.drawing import ASCII, UNICODE
from activedpo_cli.cli.evaluation_output import comparable, print_charts, print_evaluations
from activedpo_cli.reports import build

UNIMPORTANT = ("torch", "transformers", "matplotlib", "jinja2", "rich.live")
PROBE = """
import sys
from activedpo_cli.cli.app import app
try:
    app({words!r})
except SystemExit as end:
    assert not end.code, end.code
print([name for name in {names!r} if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[Path]]]:
    """A report that only notes which runs it is about."""
    asked: list[list[Path]] = []

    def build_report(runs: list[Any], output: Path | None = None, *, force: bool = False) -> Any:
        asked.append([run.path for run in runs])
        return SimpleNamespace(page=runs[0].path / "report" / "index.html")

    monkeypatch.setattr(build, "build_report", build_report)
    return asked


def evaluation(iteration: int, reward: float | None, **more: Any) -> dict[str, Any]:
    return {"iteration": iteration, "labels_spent": 8 * iteration, "reward_mean": reward, **more}


def metrics(run: Path) -> list[dict[str, Any]]:
    folders = [run / "reference", *(run / f"iter-{t:03d}" for t in (1, 2))]
    return [json.loads((folder / "evaluate" / "metrics.json").read_bytes()) for folder in folders]


def test_table_chart_and_paths(finished: Path, reported: list) -> None:
    lines = done(*on(finished, "run"), "--iterations", 2).stdout.splitlines()
    assert lines[: 2 * len(STAGES)] == [str(finished / f"iter-{t:03d}" / stage) for t in (1, 2) for stage in STAGES]
    assert lines[-2:] == [f"run: {finished}", f"report: {finished}/report/index.html"]
    assert reported == [[finished]]

    table = lines[2 * len(STAGES) : 2 * len(STAGES) + 4]
    measured = metrics(finished)
    for row, facts in zip(table[1:], measured, strict=True):
        words = [str(facts["iteration"]), str(facts["labels_spent"]), f"{facts['reward_mean']:.3f}"]
        assert row.split()[:6] == [*words, f"{facts['reward_ci_low']:.3f}", "…", f"{facts['reward_ci_high']:.3f}"]

    title, *chart = lines[2 * len(STAGES) + 5 : -3]
    assert title.startswith("● reward by labels, mean and 95 % interval")
    assert max(map(len, [title, *chart])) <= 80
    drawn = Drawn(chart, UNICODE.point, UNICODE)
    assert drawn.labels == [facts["labels_spent"] for facts in measured]
    for facts, mark, (low, high) in zip(measured, drawn.marks, drawn.intervals, strict=True):
        assert abs(low - drawn.column(facts["reward_ci_low"])) <= 0.6
        assert abs(mark - drawn.column(facts["reward_mean"])) <= 0.6
        assert abs(high - drawn.column(facts["reward_ci_high"])) <= 0.6


def test_json_is_all_there_is_for_programs(finished: Path, reported: list) -> None:
    found = json.loads(done(*on(finished, "run"), "--iterations", 2, "--json").stdout)
    assert found == {
        "run": str(finished),
        "evaluations": metrics(finished),
        "report": str(finished / "report" / "index.html"),
    }


@pytest.mark.parametrize("json_too", [(), ("--json",)])
def test_no_report(finished: Path, reported: list, json_too: tuple) -> None:
    said = done(*on(finished, "run"), "--iterations", 2, "--no-report", *json_too)
    assert reported == []
    if json_too:
        assert json.loads(said.stdout)["report"] is None
    else:
        assert said.stdout.splitlines()[-1] == f"run: {finished}"


def test_quiet_says_nothing(finished: Path, reported: list) -> None:
    said = done(*on(finished, "run"), "--iterations", 2, "--quiet")
    assert said.output == ""
    assert reported == [[finished]]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (BusyError("another process makes it"), "another process makes it"),
        (ValueError("x\x1b[2J"), "ValueError: x\\x1b"),
    ],
)
def test_a_report_that_fails_is_a_warning(
    finished: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, reason: str
) -> None:
    def build_report(*_: Any, **__: Any) -> Any:
        raise failure

    monkeypatch.setattr(build, "build_report", build_report)
    said = done(*on(finished, "run"), "--iterations", 2)
    assert f"warning: the report was not made: {reason}" in said.stderr
    assert f"`activedpo report {finished}`" in said.stderr
    assert said.stdout.splitlines()[-1] == f"run: {finished}"
    said = done(*on(finished, "run"), "--iterations", 2, "--json")
    assert json.loads(said.stdout)["report"] is None


def test_ctrl_c_while_the_report_is_made(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_report(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "build_report", build_report)
    said = activedpo(*on(finished, "run"), "--iterations", 2)
    assert said.exit_code == 130
    assert "interrupted: what was finished is kept\ngo on with `activedpo" in said.stderr


@pytest.mark.usefixtures("blank_figures")
def test_done_before_it_only_looks(finished: Path) -> None:
    """The first command makes the report, the second finds it there and loads nothing that draws or computes."""
    words = [str(word) for word in (*on(finished, "run"), "--iterations", 2)]
    first = done(*words).stdout
    page = Path(first.splitlines()[-1].removeprefix("report: "))
    assert "</html>" in page.read_text()
    before = page.stat().st_mtime_ns
    probe = PROBE.format(words=words, names=UNIMPORTANT)
    again = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert again.stdout == first
    assert again.stderr.splitlines()[-1] == "[]"
    assert page.stat().st_mtime_ns == before


def test_a_second_scorer_has_a_chart_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    print_charts(
        [
            evaluation(0, 0.1, scorer="python:rule:score"),
            evaluation(1, 0.2, scorer="python:rule:score", second_reward_mean=-40.0, second_scorer="reward-model:x"),
            evaluation(2, 0.3, scorer="python:rule:score", second_reward_mean=-20.0, second_scorer="reward-model:x"),
        ]
    )
    first, second = (chart.splitlines() for chart in capsys.readouterr().out.strip("\n").split("\n\n"))
    assert first[0].endswith("scorer python:rule:score")
    assert second[0].startswith("◆ second reward")
    assert second[0].endswith("scorer reward-model:x")
    assert sum(line.count("●") for line in first[1:]) == 3
    drawn = Drawn(second[1:], UNICODE.second_point, UNICODE)
    assert drawn.labels == [8, 16]
    assert drawn.marks == [0, drawn.columns - 1]


@pytest.mark.parametrize("reward", [None, float("nan")])
def test_without_rewards_nothing_is_drawn(capsys: pytest.CaptureFixture[str], reward: Any) -> None:
    print_charts([evaluation(0, reward), evaluation(1, reward, reward_ci_low=None, reward_ci_high=None)])
    assert capsys.readouterr().out == ""


def test_a_hostile_scorer(capsys: pytest.CaptureFixture[str]) -> None:
    print_charts([evaluation(0, 0.1, scorer="python:\x1b[2J\n\u202eevil" + "x" * 200)])
    title = capsys.readouterr().out.splitlines()[1]
    assert title.isprintable()
    assert len(title) == 80
    assert title.endswith("…")


def test_an_output_that_has_only_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    rows = [evaluation(0, 0.1, reward_ci_low=0.0, reward_ci_high=0.2, win_rate=None), evaluation(1, 0.4, win_rate=0.5)]
    print_evaluations([row | {"scorer": "π"} for row in rows])
    print_charts([row | {"scorer": "π"} for row in rows])
    stdout.flush()
    text = stdout.buffer.getvalue().decode("ascii")
    assert "0.000 .. 0.200" in text
    assert "scorer \\u03c0" in text
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("o reward"))
    assert Drawn(lines[start + 1 :], ASCII.point, ASCII).marks[1] == 80 - 3 - 1


class Screen(io.StringIO):
    """A stdout that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("width", "headings"), [(100, 1), (80, 3)])
def test_a_whole_table_fits_80_columns(monkeypatch: pytest.MonkeyPatch, width: int, headings: int) -> None:
    """A row for each evaluation, in one line; only the headings are folded."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", screen := Screen())
    more = {
        "reward_ci_low": -0.254,
        "reward_ci_high": 0.324,
        "win_rate": 0.563,
        "second_reward_mean": 0.5,
        "second_win_rate": 0.553,
        "kl_to_reference": 27.985,
        "response_tokens_mean": 38.5,
    }
    print_evaluations([evaluation(0, 0.035, **more), evaluation(1, 0.573, **more)])
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in screen.getvalue().splitlines()]
    assert len(lines) == headings + 2
    assert max(map(len, lines)) <= width
    words = "1 8 0.573 -0.254 … 0.324 56.3 % 0.500 55.3 % 27.985 38.5"
    assert lines[-1].split() == words.split()


def test_rewards_by_another_scorer_are_not_drawn_with_the_newest(capsys):
    def row(iteration, reward, scorer):
        return {"iteration": iteration, "labels_spent": 10 * iteration, "reward_mean": reward, "scorer": scorer}

    rows = [row(0, 4.5, "B"), row(1, 0.6, "A"), row(2, 5.5, "B")]
    assert [found["iteration"] for found in comparable(rows)] == [0, 2]
    assert comparable([row(0, 1.0, None)]) == [row(0, 1.0, None)]
    print_charts(rows)
    printed = capsys.readouterr().out
    assert "1 evaluation by another scorer not drawn" in printed
    assert printed.count("●") == 3  # the title's and two points
    print_charts([rows[0], rows[2]])
    assert "not drawn" not in capsys.readouterr().out
