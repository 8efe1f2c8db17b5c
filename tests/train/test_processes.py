"""Training in several processes: what one makes but for rounding, and nothing half-made where one of them fails."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import activedpo, done, manifest, on, refused, rows
from safetensors.numpy import load_file
from zygote import Zygote

TWO = ("--num-processes", 2)
OF_ONE_PROCESS = 1e-4
"""How far weights may be from those of one process; Adam makes much of roundings where a gradient is tiny."""
FAULT = """
import os
from pathlib import Path

if os.environ.get("RANK", "none") in "{ranks}":
    import torch
    from torch.nn.parallel import DistributedDataParallel

    plain, calls = DistributedDataParallel.forward, []

    def forward(self, *arguments, **named):
        calls.append(1)
        if len(calls) == {call}:
            {what}
        return plain(self, *arguments, **named)

    DistributedDataParallel.forward = forward
"""


def weights(folder: Path) -> dict[str, Any]:
    """All weights in the files of a folder."""
    return {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}


def assert_alike(found: Path, expected: Path, tolerance: float = OF_ONE_PROCESS) -> None:
    made, alone = weights(found), weights(expected)
    assert made.keys() == alone.keys()
    for name, value in alone.items():
        np.testing.assert_allclose(made[name], value, rtol=0, atol=tolerance)


def assert_same_updates(found: Path, expected: Path) -> None:
    made, alone = rows(found / "metrics.jsonl"), rows(expected / "metrics.jsonl")
    for row, other in zip(made, alone, strict=True):
        for name in ("loss", "grad_norm", "num_tokens", "rewards/margins", "rewards/accuracies", "logps/chosen"):
            if name in other:
                assert row[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4), name


def at_call(folder: Path, monkeypatch: pytest.MonkeyPatch, what: str, ranks: str = "1", call: int = 2) -> None:
    """Let something happen in processes of these numbers when they come to their model for the so-manieth time."""
    (folder / "sitecustomize.py").write_text(FAULT.format(ranks=ranks, call=call, what=what))
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.whole
def test_two_processes_make_the_adapter_of_one(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pairs in batches of two and one, the latter for one of both alone, twice; random states are their own."""
    given = ("--labels", "all", "--train-batch-size", 2, "--epochs", 2)
    done(*on(finished, "train", iteration=2), "--force", *given)
    alone = tmp_path / "alone"
    shutil.copytree(finished / "iter-002" / "train", alone)
    note = f'Path("{tmp_path}", "drawn-" + os.environ["RANK"]).write_text(str(torch.get_rng_state().sum()))'
    at_call(tmp_path, monkeypatch, note, ranks="01", call=1)
    done(*on(finished, "train", iteration=2), "--force", *given, *TWO)
    made = finished / "iter-002" / "train"
    assert_alike(made / "adapter", alone / "adapter")
    assert_same_updates(made, alone)
    record = manifest(finished, 2, "train")
    before = json.loads((alone / "manifest.json").read_bytes())
    assert record["summary"].pop("processes") == 2
    assert record["summary"]["preferences"] == before["summary"]["preferences"]
    assert record["summary"]["preferences"] == 3
    assert record["settings"] == before["settings"]
    assert sorted(record["outputs"]) == sorted(before["outputs"])
    assert sorted(path.name for path in made.iterdir()) == sorted(path.name for path in alone.iterdir())
    assert "up to date" in done(*on(finished, "train", iteration=2), "--num-processes", 3).stderr
    drawn = [(tmp_path / f"drawn-{rank}").read_text() for rank in (0, 1)]
    assert drawn[0] != drawn[1], "both processes would drop the same"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ('raise torch.OutOfMemoryError("CUDA out of memory")', "memory does not suffice for step 2 of training"),
        ("os.kill(os.getpid(), 9)", "process 2 of 2 ended with code -9, killed"),
        ('raise ValueError("a fault of a library")', "one of the processes failed: ValueError('a fault of a library')"),
    ],
)
def test_one_that_fails_ends_all(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, said: str
) -> None:
    shutil.rmtree(finished / "iter-002" / "train")
    shutil.rmtree(finished / "iter-002" / "evaluate")
    at_call(tmp_path, monkeypatch, what)
    assert said in refused(1, *on(finished, "train", iteration=2), "--labels", "all", *TWO)
    assert not (finished / "iter-002" / "train").exists()
    monkeypatch.delenv("PYTHONPATH")
    done(*on(finished, "train", iteration=2))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_all_end_with_the_command(finished: Path, zygote: Zygote, number: int) -> None:
    train = finished / "iter-002" / "train"
    shutil.rmtree(train)
    shutil.rmtree(finished / "iter-002" / "evaluate")
    words = on(finished, "train", "--iteration", 2, "--epochs", 200, *TWO)
    command = zygote.start(words, finished.parent)
    while not list(train.glob(".scratch.tmp/rows.jsonl")):
        time.sleep(0.05)
    os.kill(command, number)
    assert zygote.wait(command) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    end = time.monotonic() + 10
    while at_work(finished) and time.monotonic() < end:
        time.sleep(0.05)
    assert at_work(finished) == []
    assert not (train / "manifest.json").exists()
    assert number == signal.SIGKILL or not train.exists()
    done(*on(finished, "train", iteration=2), "--force", "--epochs", 1)


def at_work(run: Path) -> list[str]:
    """The command lines of processes that train for a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "activedpo_cli.train.worker" in words and any(str(run) in word for word in words):
            found.append(" ".join(words))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("lora", [(), ("--lora-r", 4)])
def test_fine_tuning_by_two_goes_on_from_their_checkpoint(
    tmp_path: Path, small_model: Path, prompts_file: Path, monkeypatch: pytest.MonkeyPatch, lora: tuple[object, ...]
) -> None:
    """Nineteen examples in updates of twelve and seven; one is killed in the fourth update, and two or one go on."""
    lines = [{"prompt": f"Say {n}:", "completion": f" {n}, {n * 7 % 5}" + " and so" * (n % 4)} for n in range(21)]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = ("--data", tmp_path / "examples.jsonl", "--batch-size", 4, "--gradient-accumulation-steps", 3, *lora)
    given += ("--epochs", 3, "--set", "sft.eval_share=0.1", "--set", "sft.save_steps=1", "--learning-rate", 1e-3)

    def begun(name: str) -> Path:
        run = tmp_path / name
        done("init", "--run", run, "--model", small_model, "--prompts", prompts_file, "--eval-prompts", 4, "--quiet")
        return run

    alone = begun("alone")
    done("sft", "--run", alone, *given)
    run = begun("together")
    at_call(tmp_path, monkeypatch, "os.kill(os.getpid(), 9)", call=10)
    assert "process 2 of 2 ended with code -9" in refused(1, "sft", "--run", run, *given, *TWO)
    monkeypatch.delenv("PYTHONPATH")
    sft = run / "reference" / "sft"
    assert [path.name for path in sft.glob("checkpoint-*")] == ["checkpoint-00000003"]
    shutil.copytree(run, tmp_path / "by-one")
    for again, more in ((run, TWO), (tmp_path / "by-one", ())):
        done("sft", "--run", again, *given, *more)
        made = again / "reference" / "sft"
        assert_alike(made / "model", alone / "reference" / "sft" / "model")
        assert_same_updates(made, alone / "reference" / "sft")
        record = json.loads((made / "manifest.json").read_bytes())
        assert record["summary"].get("processes") == (2 if more else None)
        assert not list(made.glob("checkpoint-*"))


def test_a_loop_refuses_before_it_samples(finished: Path) -> None:
    told = activedpo("run", "--run", finished, "--iterations", 3, "--num-processes", 5)
    assert told.exit_code == 2
    assert "which 5 processes can't share" in told.stderr
    assert not (finished / "iter-003").exists()
