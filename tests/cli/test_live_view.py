"""The live view at a terminal, in real processes: what is seen, what stays, and what a signal or an error leaves."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from command_line import STAGES, all_outputs, done, on, rows
from pseudo_terminal import Screen, Terminal
from small_runs import small_run
from zygote import Zygote

ORACLE = """
import os, time
def score(prompts, responses):
    time.sleep(0.3 if os.path.exists("slowly") else 0)
    return [float(len(response) + sum(map(ord, response)) % 7) for response in responses]
"""
TALKATIVE = ORACLE.replace("    time", "    print('an oracle speaks')\n    time")
FAILING = ORACLE.replace("    time", "    raise ValueError('no idea')\n    time")
DEAF = """
import pathlib, time
def score(prompts, responses):
    pathlib.Path("asked").touch()
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""
INTERRUPTED = "interrupted: what was finished is kept, {} answers so far in `{}`go on with `{}`"
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-9]|4[0-9]|9[0-7])(?:;\d+)*m")


@pytest.fixture(scope="module")
def uninterrupted(
    zygote: Zygote, tmp_path_factory: pytest.TempPathFactory, small_model: Path, prompts_file: Path
) -> Path:
    """One iteration, done without anybody looking; the oracle lies beside the run. Meanwhile the zygote imports."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "terminal_oracle.py").write_text(ORACLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = small_run(
            folder / "run",
            small_model,
            prompts_file,
            "python:terminal_oracle:score",
            select__budget=12,
            label__unit_size=2,
        )
        done(*on(run, "run"), "--iterations", 1, "--quiet", "--no-report")
    return folder


@pytest.fixture
def workplace(uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it with the last three stages to do, where this process stands now."""
    folder = Path(shutil.copytree(uninterrupted, tmp_path / "copy"))
    for stage in STAGES[3:]:
        shutil.rmtree(folder / "run" / "iter-001" / stage)
    monkeypatch.chdir(folder)
    return folder


def loop(workplace: Path, *more: object, iterations: int = 1) -> tuple[object, ...]:
    return (*on(workplace / "run", "run"), "--iterations", iterations, "--no-report", *more)


def is_view(screen: Screen) -> bool:
    return any(line.startswith("elapsed ") for line in screen)


def with_line(frames: list[Screen], start: str) -> list[Screen]:
    return [frame for frame in frames if any(line.startswith(start) for line in frame)]


def assert_clean(terminal: Terminal) -> None:
    """The view is gone and the person sees their cursor, below everything that was said."""
    assert terminal.is_cursor_shown
    assert not any(line.startswith(("elapsed ", "▸", "· ", "  reward ")) for line in terminal.everything)
    assert b"Traceback" not in terminal.raw


def test_from_the_first_stage_to_the_table(workplace: Path, zygote: Zygote) -> None:
    (workplace / "terminal_oracle.py").write_text(TALKATIVE)
    shutil.rmtree(workplace / "run" / "reference" / "evaluate")
    terminal = Terminal()
    assert terminal.run(zygote, loop(workplace, iterations=2), workplace) == 0

    views = [frame for frame in terminal.frames if is_view(frame)]
    first, second = with_line(views, "run · iteration 1 of 2"), with_line(views, "run · iteration 2 of 2")
    assert with_line(with_line(first, "✓ select"), "▸ label")
    assert with_line(with_line(first, "▸ train"), "· evaluate")
    assert with_line(with_line(second, "✓ label"), "  reward ▁") or with_line(second, "  reward █")
    for view in views:
        for stage in STAGES:
            assert sum(bool(re.match(rf"[✓▸·] {stage}\b", line)) for line in view) == 1, view
    assert not any("about" in line for view in first for line in view), (
        "before the first evaluation it would be a guess"
    )
    assert any(re.fullmatch(r"elapsed .* · about .* left", line) for view in second for line in view)

    assert_clean(terminal)
    said = terminal.everything
    assert said.count("an oracle speaks") == 2 * (12 // 2) + 3 * (4 * 2 // 2), "labels and evaluations in units of 2"
    (end,) = [line for line in said if line.startswith("✓")]
    assert re.fullmatch(r"✓ 9 of 12 stages done in .*; 3 were up to date", end)
    table = said[said.index(end) + 1 :]
    for number, path in enumerate(["reference/evaluate", "iter-001/evaluate", "iter-002/evaluate"]):
        metrics = json.loads((workplace / "run" / path / "metrics.json").read_bytes())
        assert table[1 + number].split()[:3] == [str(number), str(12 * number), f"{metrics['reward_mean']:.3f}"]
        seen = f"{12 * number:>8}  {metrics['reward_mean']:>6.3f}"
        assert number == 2 or with_line(second, seen[:16]), seen
    assert any(line.startswith("run: ") for line in table[-3:]), "a long path takes more than a line"
    assert sum(line.count("●") for line in table) == 4, "three evaluations and the title"


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 9)])
def test_ctrl_c_keeps_the_work(workplace: Path, uninterrupted: Path, zygote: Zygote, columns: int, lines: int) -> None:
    pressed: list[Screen] = []

    def press(terminal: Terminal) -> None:
        if not pressed and any(re.search(r" [1-9]\d*/12 pairs", line) for line in terminal.screen):
            pressed.append(terminal.screen)
            terminal.type("\x03")

    (workplace / "slowly").touch()
    terminal = Terminal(columns, lines)
    assert terminal.run(zygote, loop(workplace), workplace, press) == 130
    assert is_view(pressed[0])
    assert_clean(terminal)
    answers = workplace / "run" / "iter-001" / "label" / "labels.jsonl"
    paid = answers.read_bytes()
    typed = " ".join(["activedpo", *map(str, loop(workplace))])
    expected = INTERRUPTED.format(paid.count(b"\n"), answers.parent, typed)
    assert "".join(terminal.everything).replace(" ", "") == expected.replace(" ", ""), "once, and nothing else"

    (workplace / "slowly").unlink()
    assert 1 <= paid.count(b"\n") < 12
    done(*loop(workplace), "--quiet")
    assert answers.read_bytes().startswith(paid)
    assert len(rows(answers)) == 12
    assert all_outputs(workplace / "run") == all_outputs(uninterrupted / "run")


def test_a_second_ctrl_c_gives_the_cursor_back(workplace: Path, zygote: Zygote) -> None:
    """At once, from an oracle that hears neither."""
    (workplace / "terminal_oracle.py").write_text(DEAF)
    pressed: list[float] = []

    def press(terminal: Terminal) -> None:
        is_due = time.monotonic() - pressed[-1] > 0.5 if pressed else (workplace / "asked").exists()
        if is_due and len(pressed) < 2:
            assert not terminal.is_cursor_shown
            pressed.append(time.monotonic())
            terminal.type("\x03")

    terminal = Terminal()
    assert terminal.run(zygote, loop(workplace), workplace, press) == 130
    assert time.monotonic() - pressed[-1] < 1.5
    assert len(pressed) == 2
    assert terminal.is_cursor_shown
    assert any(line.startswith("stopped at once; ") for line in terminal.everything)


def test_a_terminal_that_closes_ends_the_work(workplace: Path, uninterrupted: Path, zygote: Zygote) -> None:
    """Nobody is there to read what is kept; it is kept all the same."""
    answers = workplace / "run" / "iter-001" / "label" / "labels.jsonl"
    (workplace / "slowly").touch()
    terminal = Terminal()
    zygote.start(loop(workplace), workplace, terminal=terminal.name)
    deadline = time.monotonic() + 60
    while not answers.exists() and time.monotonic() < deadline:
        terminal.look()
    terminal.close()
    assert zygote.wait() == 130
    paid = answers.read_bytes()
    assert 1 <= paid.count(b"\n") < 12
    (workplace / "slowly").unlink()
    done(*loop(workplace), "--quiet")
    assert answers.read_bytes().startswith(paid)
    assert all_outputs(workplace / "run") == all_outputs(uninterrupted / "run")


def test_an_error_stands_below_what_was_said_before(workplace: Path, zygote: Zygote) -> None:
    (workplace / "terminal_oracle.py").write_text(FAILING)
    terminal = Terminal()
    assert terminal.run(zygote, loop(workplace), workplace) not in (0, 130)
    assert any(map(is_view, terminal.frames))
    assert_clean(terminal)
    assert terminal.everything[0].startswith("error: ")
    assert "no idea" in "".join(terminal.everything)


def test_warnings_stay(workplace: Path, zygote: Zygote) -> None:
    """That of a torn answer comes while the view is shown."""
    terminal = Terminal()
    done(*on(workplace / "run", "label"), "--quiet")
    folder = workplace / "run" / "iter-001" / "label"
    (folder / "labels.jsonl").write_bytes((folder / "labels.jsonl").read_bytes()[:-20])
    record = json.loads((folder / "manifest.json").read_bytes())
    identity = ("schema", "stage", "stage_version", "iteration", "settings", "inputs")
    (folder / "started.json").write_text(json.dumps({key: record[key] for key in identity}))
    for name in ("manifest.json", "outcomes.jsonl", "preferences.jsonl"):
        (folder / name).unlink()
    assert terminal.run(zygote, loop(workplace), workplace) == 0
    assert any(is_view(frame) for frame in with_line(terminal.frames, "warning: cut "))
    assert sum(line.startswith("warning: cut ") for line in terminal.everything) == 1
    assert_clean(terminal)


@pytest.mark.whole
def test_people_have_the_terminal_to_themselves(workplace: Path, zygote: Zygote) -> None:
    asked: list[Screen] = []
    told = [0.0]

    def answer(terminal: Terminal) -> None:
        shown = " ".join(line for line in terminal.screen if line)
        if len(asked) < 12 and f"pair {len(asked) + 1} of 12" in shown:
            asked.append(terminal.screen)
            terminal.type("1")
        elif "once more" in shown and time.monotonic() > told[0] + 1:
            told[0] = time.monotonic()  # so quick a key is no answer to a pair that nobody can have read
            terminal.type("1")
        elif len(asked) == 12 and "Enter" in shown:
            asked.append(terminal.screen)
            terminal.type("\r")

    terminal = Terminal(rows=60)
    assert terminal.run(zygote, loop(workplace, "--oracle", "human"), workplace, answer) == 0
    assert len(asked) == 13, "twelve pairs, and the end, which waits for Enter"
    assert not any(map(is_view, asked))
    assert with_line(terminal.frames, "▸ train"), "the view comes back"
    assert_clean(terminal)


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {}])
def test_terminals_that_can_or_should_do_less(workplace: Path, zygote: Zygote, environment: dict[str, str]) -> None:
    terminal = Terminal(40, 12)
    assert terminal.run(zygote, loop(workplace), workplace, environment=environment) == 0
    assert (b"\x1b" in terminal.raw) == ("TERM" not in environment)
    assert bool(COLOUR.search(terminal.raw)) == (not environment)
    assert any(map(is_view, terminal.frames)) == ("TERM" not in environment)
    assert not any(line.startswith("elapsed") for line in terminal.everything)


def test_results_in_a_file_are_what_they_are_without_a_terminal(workplace: Path, zygote: Zygote) -> None:
    results, terminal = workplace / "results.txt", Terminal()
    assert terminal.run(zygote, loop(workplace), workplace, stdout=results) == 0
    assert any(map(is_view, terminal.frames))
    assert_clean(terminal)
    expected = done(*loop(workplace)).stdout
    assert results.read_text() == expected
    assert expected.splitlines()[: len(STAGES)] == [str(workplace / "run" / "iter-001" / stage) for stage in STAGES]
