"""Killed at any moment and run again, a stage ends where it would have ended."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import STAGES, all_outputs, done, manifest, on, outputs, rows
from small_runs import small_run
from zygote import Zygote

SLOW_ORACLE = """
import time
def score(prompts, responses):
    time.sleep(0.02)
    return [float(len(response) + sum(map(ord, response)) % 7) for response in responses]
"""

SLOWED = {"train": "activedpo_cli.train.dpo_trainer:_StoredTokensTrainer.compute_loss"}
"""What takes longer while a signal is on its way, where the whole work is done in a moment."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, small_model: Path, prompts_file: Path) -> Path:
    """One iteration of many small units; the oracle lies beside the run."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "slow_oracle.py").write_text(SLOW_ORACLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = small_run(
            folder / "run",
            small_model,
            prompts_file,
            "python:slow_oracle:score",
            generate__unit_size=1,
            generate__num_prompts=12,
            featurize__unit_size=2,
            featurize__tokens_per_batch=128,
            select__budget=12,
            label__unit_size=1,
            train__num_train_epochs=2,
            evaluate__unit_size=1,
        )
        done(*on(run, "run"), "--iterations", 1, "--quiet", "--no-report")
    return folder


@pytest.fixture
def workplace(uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where this process stands now."""
    folder = Path(shutil.copytree(uninterrupted, tmp_path / "copy"))
    monkeypatch.chdir(folder)
    return folder


def forget_from(run: Path, stage: str) -> Path:
    """Delete a stage and all after it; returns its folder."""
    for later in STAGES[STAGES.index(stage) :]:
        shutil.rmtree(run / "iter-001" / later)
    shutil.rmtree(run / "reference" / "evaluate")
    return run / "iter-001" / stage


@pytest.mark.parametrize(
    ("stage", "sign", "delay"),
    [
        ("generate", "responses-00000.jsonl", 0),
        ("label", "labels.jsonl", 0.03),
        ("train", ".scratch.tmp", 0.3),
        ("evaluate", "../../reference/evaluate/responses-00001.jsonl", 0),
    ],
)
def test_killed_and_run_again(workplace: Path, zygote: Zygote, stage: str, sign: str, delay: float) -> None:
    run = workplace / "run"
    expected = all_outputs(run)
    folder = forget_from(run, stage)

    def seen() -> bool:
        if not (folder / "started.json").exists() or not (folder / sign).exists():
            return False
        time.sleep(delay)
        return True

    status = zygote.stop_when(on(run, stage), workplace, seen, signal.SIGKILL, slowed=SLOWED.get(stage))
    assert status == -signal.SIGKILL
    assert (folder / "started.json").exists()
    assert not (folder / "manifest.json").exists(), "it was killed too late to prove anything"
    paid = (folder / "labels.jsonl").read_bytes() if stage == "label" else b""
    assert paid.count(b"\n") < 12

    done(*on(run, stage))
    assert manifest(run, 1, stage)["execution"]["resumed"] is True
    assert outputs(run, 1, stage) == expected[f"iter-001/{stage}"]
    if stage == "label":
        assert (folder / "labels.jsonl").read_bytes().startswith(paid)
        assert len(rows(folder / "labels.jsonl")) == 12, "no answer is bought twice"
    done(*on(run, "run"), "--iterations", 1, "--quiet", "--no-report")
    assert all_outputs(run) == expected
    assert not list(run.rglob(".*.tmp*"))


@pytest.mark.parametrize(
    ("stage", "number", "sign", "delay"),
    [
        ("generate", signal.SIGTERM, "responses-00001.jsonl", 0),
        ("featurize", signal.SIGHUP, "features-00001.safetensors", 0),
        ("select", signal.SIGINT, "started.json", 0),
        ("label", signal.SIGINT, "labels.jsonl", 0.03),
        ("train", signal.SIGTERM, ".scratch.tmp", 0.3),
        ("evaluate", signal.SIGINT, "../../reference/evaluate/responses-00001.jsonl", 0),
        ("run", signal.SIGTERM, "../generate/responses-00001.jsonl", 0),
    ],
)
def test_a_polite_signal_keeps_the_work(
    workplace: Path, zygote: Zygote, stage: str, number: int, sign: str, delay: float
) -> None:
    """It ends with what is kept and the command that goes on, and nothing else is said."""
    run = workplace / "run"
    expected = all_outputs(run)
    folder = forget_from(run, "generate" if stage == "run" else stage)

    def seen() -> bool:
        if not (folder / sign).exists():
            return False
        time.sleep(delay)
        return True

    words = (*on(run, stage), *(("--iterations", 1, "--no-report") if stage == "run" else ()), "--quiet")
    status = zygote.stop_when(words, workplace, seen, number, stderr=workplace / "said", slowed=SLOWED.get(stage))
    said = (workplace / "said").read_text()
    if stage != "select" or not (folder / "manifest.json").exists():  # it may be done before the signal is there
        assert status == 130, said
        kept, how = said.splitlines()
        assert kept.startswith("interrupted: what was finished is kept, ")
        assert f"in `{folder}`" in kept
        assert how == f"go on with `activedpo {' '.join(map(str, words))}`"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*-0*") if path.is_file()}
    done(*words)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished units are not made again"
    made = all_outputs(run)
    assert made == {name: expected[name] for name in made}
    assert folder.relative_to(run).as_posix() in made


DEAF_ORACLE = """
import pathlib, time
def score(prompts, responses):
    deaf = pathlib.Path("deaf")
    while deaf.exists() or pathlib.Path("once").exists():
        try:
            pathlib.Path("asked").touch()
            time.sleep(60)
        except:
            pathlib.Path("once").unlink(missing_ok=True)
    return [0.0 for _ in responses]
"""


def test_a_scorer_that_swallows_the_signal_sells_nothing(workplace: Path, zygote: Zygote) -> None:
    """What it returns instead of a score is no answer."""
    run = workplace / "run"
    folder = forget_from(run, "label")
    (workplace / "slow_oracle.py").write_text(DEAF_ORACLE)
    (workplace / "once").touch()
    status = zygote.stop_when(on(run, "label"), workplace, (workplace / "asked").exists, signal.SIGTERM)
    assert status == 130
    assert not (workplace / "once").exists()
    assert not (folder / "labels.jsonl").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(workplace: Path, zygote: Zygote, number: int) -> None:
    """Whatever hears neither the first nor the second; and twice within a moment is once."""
    run = workplace / "run"
    folder = forget_from(run, "label")
    (workplace / "slow_oracle.py").write_text(DEAF_ORACLE)
    (workplace / "deaf").touch()

    def heard_twice() -> bool:
        if not (workplace / "asked").exists():
            return False
        for _ in range(2):
            os.kill(zygote.last_pid, number)
            time.sleep(0.02)
        time.sleep(0.5)
        assert Path(f"/proc/{zygote.last_pid}").exists()
        return True

    began = time.monotonic()
    status = zygote.stop_when(on(run, "label"), workplace, heard_twice, number, stderr=workplace / "said")
    assert status == 130
    assert time.monotonic() - began < 10
    assert "stopped at once" in (workplace / "said").read_text()
    assert not (folder / "manifest.json").exists()


def test_killed_while_a_stage_is_made_again(workplace: Path, zygote: Zygote) -> None:
    """The old result stays in its place until the new one is whole, and the new one is continued."""
    run = workplace / "run"
    old = outputs(run, 1, "generate")
    redone = run / "iter-001" / ".generate.redo"
    again = (*on(run, "generate"), "--force", "--temperature", "0.6")
    zygote.stop_when(again, workplace, (redone / "responses-00001.jsonl").exists, signal.SIGKILL)
    assert outputs(run, 1, "generate") == old
    unit = redone / "responses-00000.jsonl"
    text, time_made = unit.read_bytes(), unit.stat().st_mtime_ns
    done(*again)
    made = run / "iter-001" / "generate" / "responses-00000.jsonl"
    assert (made.read_bytes(), made.stat().st_mtime_ns) == (text, time_made)
    assert not redone.exists()
    assert manifest(run, 1, "generate")["settings"]["generate.temperature"] == 0.6


@pytest.fixture(scope="module")
def sft_words(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """30 examples, learnt in 28 steps."""
    data = tmp_path_factory.mktemp("examples") / "examples.jsonl"
    found = [{"prompt": f"Say {n}:", "completion": f" {n} and {n + 1}."} for n in range(30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in found))
    return ("--data", data, "--set", "sft.learning_rate=0.01", "--batch-size", 2, "--epochs", 2, "--save-steps", 5)


def test_sft_killed_twice(
    tmp_path: Path, small_model: Path, prompts_file: Path, zygote: Zygote, sft_words: tuple[Any, ...]
) -> None:
    whole = small_run(tmp_path / "whole", small_model, prompts_file)
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    done(*on(whole, "sft"), *sft_words, "--quiet")
    folder = run / "reference" / "sft"

    def reached(step: int) -> Callable[[], bool]:
        return lambda: any(int(path.name[-8:]) >= step for path in folder.glob("checkpoint-*"))

    for sign in (reached(10), (folder / "model").exists):
        status = zygote.stop_when((*on(run, "sft"), *sft_words), tmp_path, sign, signal.SIGKILL)
        assert status in (-signal.SIGKILL, 0)
        assert status == 0 or not (folder / "manifest.json").exists()
        assert len(list(folder.glob("checkpoint-*"))) <= 2
    done(*on(run, "sft"), "--quiet")
    assert all_outputs(run)["reference/sft"] == all_outputs(whole)["reference/sft"]
    metrics = rows(folder / "metrics.jsonl")
    assert metrics == rows(whole / "reference" / "sft" / "metrics.jsonl")
    assert [row["step"] for row in metrics] == list(range(1, 29))
    left = {path.name for path in folder.iterdir()}
    assert left == {"manifest.json", "base.json", "held-out.jsonl", "metrics.jsonl", "model"}


def test_sft_terminated_while_the_run_was_made_by_it(
    tmp_path: Path, small_model: Path, prompts_file: Path, zygote: Zygote, sft_words: tuple[Any, ...]
) -> None:
    """The run stays, since something was made in it, and says how far it is and what comes next."""
    run = tmp_path / "run"
    start = ("--model", small_model, "--prompts", prompts_file, "--eval-prompts", 4, *sft_words)
    folder = run / "reference" / "sft"
    status = zygote.stop_when(
        (*on(run, "sft"), *start), tmp_path, lambda: any(folder.glob("checkpoint-*")), signal.SIGTERM
    )
    assert status == 130
    found = json.loads(done(*on(run, "status"), "--json").stdout)
    assert found["sft"]["state"] == "partial"
    assert found["sft"]["headline"].endswith("steps so far")
    assert found["next"] == f"activedpo sft --run {run}"
    small = ("--no-report", "--num-prompts", 4, "--budget", 4, "--max-new-tokens", 6, "--proj-dim", 64)
    done(*on(run, "run"), "--iterations", 1, "--oracle", "python:letter_rule:score", *small)
    assert (folder / "manifest.json").is_file()
    assert outputs(run, 1, "train")
