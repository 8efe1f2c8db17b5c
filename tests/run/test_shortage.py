"""When memory runs out in a stage: smaller batches, the same results where they are promised, and advice at the end."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import done, manifest, on, outputs, refused, rows
from safetensors.torch import load_file

from activedpo_cli.generate.backends import transformers_backend
from activedpo_cli.gradients import logps
from activedpo_cli.train.trainer_setup import AuditedTrainer


def limited(real: Callable[..., Any], count: Callable[..., int], most: int) -> Callable[..., Any]:
    """The function, which fails as a GPU does where there are more than so many rows."""

    def work(*args: Any, **kwargs: Any) -> Any:
        if count(*args) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(*args, **kwargs)

    return work


def limit_sampling(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    work = limited(transformers_backend.sample_unit, lambda model, prompts: len(prompts), most)
    monkeypatch.setattr(transformers_backend, "sample_unit", work)


def sampled(run: Path, folder: str) -> list[dict[str, Any]]:
    return [row for path in sorted((run / folder).glob("responses-*.jsonl")) for row in rows(path)]


def test_units_are_sampled_in_halves_and_that_is_written_down(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, before = outputs(finished, 1, "generate"), sampled(finished, "iter-001/generate")
    limit_sampling(monkeypatch, 1)
    told = done(*on(finished, "generate", iteration=1), "--force").stderr
    assert "memory did not suffice for unit 0 as one batch: sampled in 2, of 1, 1 prompts" in told
    assert rows(finished / "iter-001/generate/halved.jsonl") == [{"unit": u, "batches": [1, 1]} for u in range(3)]
    assert set(manifest(finished, 1, "generate")["logs"]) == {"halved.jsonl"}
    halved = outputs(finished, 1, "generate")
    assert halved != whole
    after = sampled(finished, "iter-001/generate")
    assert [row["response_id"] for row in after] == [row["response_id"] for row in before]
    assert len({tuple(row["token_ids"]) for row in after}) > len(after) / 2, "each half has a seed of its own"
    done(*on(finished, "generate", iteration=1), "--force")
    assert outputs(finished, 1, "generate") == halved, "the same halves are the same responses"
    monkeypatch.undo()
    done(*on(finished, "generate", iteration=1), "--force")
    assert outputs(finished, 1, "generate") == whole
    assert not (finished / "iter-001/generate/halved.jsonl").exists()


def test_a_prompt_that_does_not_fit_alone_is_named(new_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_sampling(monkeypatch, 0)
    told = refused(1, *on(new_run, "generate"))
    assert "memory does not suffice for the responses to `p0" in told
    assert "--device cpu" in told
    assert "--max-new-tokens" in told


def test_an_evaluation_goes_on_with_less(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = manifest(finished, 1, "evaluate")["summary"]
    work = limited(logps.response_logps, lambda model, batch: len(batch.input_ids), 2)
    monkeypatch.setattr(logps, "response_logps", work)
    done(*on(finished, "evaluate", iteration=1), "--force")
    after = manifest(finished, 1, "evaluate")["summary"]
    assert after == {key: pytest.approx(value, abs=1e-4) for key, value in before.items()}
    limit_sampling(monkeypatch, 1)
    done(*on(finished, "evaluate", iteration=1), "--force")
    assert "halved.jsonl" in manifest(finished, 1, "evaluate")["logs"]
    monkeypatch.setattr(logps, "response_logps", limited(work, lambda model, batch: 1, 0))
    told = refused(1, *on(finished, "evaluate", iteration=1), "--force")
    assert "memory does not suffice for the log-probability of `p0" in told


def test_training_goes_on_with_less(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = finished / "iter-002" / "train" / "adapter" / "adapter_model.safetensors"
    words = (*on(finished, "train", iteration=2), "--force", "--labels", "all")
    done(*words)
    before = load_file(path)
    work = limited(AuditedTrainer.compute_loss, lambda trainer, model, inputs: len(inputs["row"]), 1)
    monkeypatch.setattr(AuditedTrainer, "compute_loss", work)
    told = done(*words).stderr
    assert "memory did not suffice for whole batches: their steps were done 1 rows at a time" in told
    assert manifest(finished, 2, "train")["summary"]["rows_that_fit"] == 1
    after = load_file(path)
    assert all(torch.allclose(after[name], value, rtol=0, atol=1e-4) for name, value in before.items())
    expected = outputs(finished, 2, "train")
    monkeypatch.setattr(AuditedTrainer, "compute_loss", limited(work, lambda *_: 1, 0))
    told = refused(1, *words)
    assert "memory does not suffice for step 1 of training" in told
    assert "--gradient-accumulation-steps" in told
    assert outputs(finished, 2, "train") == expected, "the last good adapter stands"


@pytest.mark.parametrize("stage", ["generate", "featurize", "select", "label", "train", "evaluate"])
@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_elsewhere_it_is_told_with_what_helps(
    finished: Path, monkeypatch: pytest.MonkeyPatch, stage: str, error: Exception
) -> None:
    before = outputs(finished, 2, stage)

    def nothing_left(*_: Any) -> Any:
        raise error

    monkeypatch.setattr("activedpo_cli.engine.runner._target", nothing_left)
    told = refused(1, *on(finished, stage, iteration=2), "--force")
    assert "memory does not suffice for this" in told
    assert " --" in told.partition("hint: ")[2]
    assert "bug" not in told
    assert outputs(finished, 2, stage) == before


def test_memory_that_the_system_refuses(finished: Path) -> None:
    """An address space that torch does not fit into."""
    before = outputs(finished, 1, "featurize")
    words = [str(word) for word in (*on(finished, "featurize", iteration=1), "--force")]
    told = subprocess.run(
        [sys.executable, "-m", "activedpo_cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (200 * 2**20, 200 * 2**20)),
    )
    assert told.returncode == 1
    assert told.stderr.startswith("error: memory does not suffice for this")
    assert "--tokens-per-batch" in told.stderr
    assert "Traceback" not in told.stderr
    assert outputs(finished, 1, "featurize") == before
