"""Rewards of the initial model go with the evaluation whose record names their file, also where two files have one mean."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest
from command_line import done, on, rows
from report_page import draw_quickly, facts, panels

from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.health.verify import verify_run
from activedpo_cli.store.run import Run

Score = Callable[[str], float]
JUDGE = "def score(prompts, responses):\n    return [float({}) for text in responses]\n"


@pytest.fixture
def judged(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Score, Score]:
    """Two iterations, the second one judged by a scorer whose content had changed: another order, the same mean.

    The second score is 4 m − 3 · (the first one), m being the first one's mean over the initial model's responses.
    """
    draw_quickly(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for folder in ("iter-001/evaluate", "iter-002/evaluate"):
        shutil.rmtree(finished / folder)
    texts = [row["text"] for path in (finished / "reference" / "evaluate").glob("responses-*") for row in rows(path)]
    mean = fmean(map(len, texts))
    judge(finished, 1, "len(text)")
    judge(finished, 2, f"{4 * mean} - 3 * len(text)")
    return finished, len, lambda text: 4 * mean - 3 * len(text)


def judge(run: Path, iteration: int, value: str) -> None:
    Path("judge.py").write_text(JUDGE.format(value))
    words = on(run, "evaluate", iteration=iteration)
    force = ("--force",) if (run / f"iter-{iteration:03d}" / "evaluate").exists() else ()
    done(*words, "--scorer", "python:judge:score", *force)


def initial_files(run: Path) -> dict[Path, float]:
    """Files of the judge's rewards with their means; all prompts have as many responses."""
    files = [path for path in (run / "reference" / "evaluate").glob("rewards-*") if "judge" in path.read_text()]
    return {path: fmean(row["reward"] for row in rows(path)) for path in files}


def test_responses_stand_beside_the_rewards_of_their_own_scorer(judged: tuple[Path, Score, Score]) -> None:
    run, first, second = judged
    means = list(initial_files(run).values())
    assert means == pytest.approx([means[0]] * 2), "else the mean alone tells the files apart"
    for value in (second, first):
        done("report", run)
        samples = facts(run / "report")["runs"][0]["samples"]
        assert [row["initial"]["reward"] for row in samples] == [value(row["initial"]["text"]) for row in samples]
        assert len({row["initial"]["reward"] for row in samples}) > 1
        shutil.rmtree(run / "iter-002" / "evaluate", ignore_errors=True)


def test_the_initial_model_stands_on_the_axes_of_the_scorer_that_its_numbers_are_of(
    judged: tuple[Path, Score, Score],
) -> None:
    """Scored by the first content again at last; the newest evaluation of that name is by the second one."""
    run, first, _ = judged
    judge(run, 1, "len(text)")
    done("report", run)
    mine, other = panels(run / "report", "reward")
    own = json.loads((run / "reference" / "evaluate" / "metrics.json").read_bytes())
    assert (mine["series"][0]["x"], other["series"][0]["x"]) == ([0, 4], [0, 8])
    assert mine["series"][0]["low"][0] == own["reward_ci_low"]
    assert other["series"][0]["low"][0] is None
    assert mine["series"][0]["y"][0] == pytest.approx(other["series"][0]["y"][0])


def problems(run: Path) -> list[dict[str, str]]:
    """Of the initial model's files; evaluation 1 is stale anyway, since the judge's file has changed."""
    found = verify_run(Run(run), SilentProgress())["problems"]
    return [problem for problem in found if problem["file"].startswith("reference/evaluate")]


def test_rewards_of_another_content_in_the_place_of_a_scorers_own_are_found(judged: tuple[Path, Score, Score]) -> None:
    """The metrics of the initial model are by the second content, so only evaluation 1 can tell."""
    run, first, _ = judged
    assert problems(run) == []
    is_first = {path: rows(path)[0]["reward"] == first(text_of(run, path)) for path in initial_files(run)}
    (changed,) = [path for path, own in is_first.items() if own]
    (other,) = [path for path, own in is_first.items() if not own]
    changed.write_bytes(other.read_bytes())
    (problem,) = problems(run)
    assert (problem["file"], problem["kind"]) == (changed.relative_to(run).as_posix(), "changed")
    assert "iter-001/evaluate" in problem["what"]
    changed.unlink()
    assert problems(run) == []


def test_a_scorer_that_was_asked_again_is_noted_and_no_problem(judged: tuple[Path, Score, Score]) -> None:
    """What a scorer imports has no digest, so `--force` may bring other rewards under the same name."""
    run, *_ = judged
    Path("newly_asked.py").write_text(JUDGE.format("len(text)"))
    shutil.rmtree(run / "iter-002" / "evaluate")
    Path("judge.py").write_text("from newly_asked import score\n")
    for iteration in (1, 2):
        force = ("--force",) if iteration == 1 else ()
        done(*on(run, "evaluate", iteration=iteration), "--scorer", "python:judge:score", *force)
    Path("newly_asked.py").write_text(JUDGE.format("ord(text[:1] or ' ')"))
    sys.modules.pop("newly_asked")
    done(*on(run, "evaluate", iteration=2), "--force")
    sys.modules.pop("newly_asked")
    found = verify_run(Run(run), SilentProgress())
    assert found["problems"] == []
    assert any("iter-001/evaluate was compared with other rewards" in note for note in found["notes"])


def text_of(run: Path, rewards: Path) -> str:
    """The response that the first reward of a file is of."""
    name = rows(rewards)[0]["response_id"]
    paths = (run / "reference" / "evaluate").glob("responses-*")
    return next(row["text"] for path in paths for row in rows(path) if row["response_id"] == name)
