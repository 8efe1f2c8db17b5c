"""SFT killed at any moment and run again ends where it would have ended, bit for bit."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import all_outputs, done, on, outputs, rows
from small_runs import small_run
from zygote import Zygote

LEARNING = ("--set", "sft.learning_rate=0.01", "--batch-size", 2, "--epochs", 2, "--save-steps", 5)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    process = Zygote()
    yield process
    process.close()


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """30 examples, learnt in 28 steps."""
    data = tmp_path_factory.mktemp("examples") / "examples.jsonl"
    found = [{"prompt": f"Say {n}:", "completion": f" {n} and {n + 1}."} for n in range(30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in found))
    return ("--data", data, *LEARNING)


def test_killed_twice(
    tmp_path: Path, small_model: Path, prompts_file: Path, zygote: Zygote, words: tuple[Any, ...]
) -> None:
    whole = small_run(tmp_path / "whole", small_model, prompts_file)
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    done(*on(whole, "sft"), *words, "--quiet")
    folder = run / "reference" / "sft"

    def reached(step: int) -> Callable[[], bool]:
        return lambda: any(int(path.name[-8:]) >= step for path in folder.glob("checkpoint-*"))

    for sign in (reached(10), (folder / "model").exists):
        status = zygote.stop_when((*on(run, "sft"), *words), tmp_path, sign, signal.SIGKILL)
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


def test_terminated_while_the_run_was_made_by_it(
    tmp_path: Path, small_model: Path, prompts_file: Path, zygote: Zygote, words: tuple[Any, ...]
) -> None:
    """The run stays, since something was made in it, and says how far it is and what comes next."""
    run = tmp_path / "run"
    start = ("--model", small_model, "--prompts", prompts_file, "--eval-prompts", 4, *words)
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
