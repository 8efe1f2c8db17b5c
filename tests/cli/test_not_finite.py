"""Numbers that are none, through the command line: the work stops, says where, and what stood before stands."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import done, on, outputs, refused, rows
from safetensors.torch import load_file, save_file
from small_runs import small_run

from activedpo_cli.gradients import logps

SOMETIMES = """
def score(prompts, responses):
    return [float("{value}") if prompt.startswith("Question 1") else 1.0 for prompt in prompts]
"""


def test_a_diverged_training_names_step_and_pairs_and_keeps_the_last_adapter(finished: Path) -> None:
    before = outputs(finished, 2, "train")
    words = ("--force", "--labels", "all", "--train-batch-size", 1, "--learning-rate", 1e30, "--max-grad-norm", 1e30)
    told = refused(1, *on(finished, "train", iteration=2), *words)
    assert "training stopped at step 2: " in told
    named = told.partition("pair ")[2].split()[0]
    assert named in {row["pair_id"] for t in (1, 2) for row in rows(finished / f"iter-00{t}/label/outcomes.jsonl")}
    assert "learning_rate" in told
    assert outputs(finished, 2, "train") == before
    done(*on(finished, "evaluate", iteration=2))


def test_a_last_update_that_overflows_is_no_adapter(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No loss follows it that would show it."""
    before = outputs(finished, 2, "train")
    real = torch.optim.AdamW.step

    def overflowing(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        found = real(optimizer, *args, **kwargs)
        optimizer.param_groups[0]["params"][0].data[0, 0] = torch.inf
        return found

    monkeypatch.setattr(torch.optim.AdamW, "step", overflowing)
    words = ("--force", "--labels", "all", "--train-batch-size", 100)
    told = refused(1, *on(finished, "train", iteration=2), *words)
    assert "training stopped at step 1: the last update left weights that are not finite" in told
    assert outputs(finished, 2, "train") == before


def test_a_diverged_sft_names_step_and_rows(new_run: Path, tmp_path: Path) -> None:
    data = tmp_path / "examples.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"Say {n}:", "completion": f" {n}."}) + "\n" for n in range(9)))
    words = ("--data", data, "--batch-size", 2, "--learning-rate", 1e30, "--set", "sft.max_grad_norm=1e30")
    told = refused(1, *on(new_run, "sft"), *words)
    assert "training stopped at step 2: " in told
    assert "line " in told
    assert not (new_run / "reference/sft/manifest.json").exists()
    assert not (new_run / "reference/sft/model").exists()
    done(*on(new_run, "sft"), "--data", data, "--batch-size", 2, "--learning-rate", 1e-4)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_score_that_is_none_buys_nothing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Neither as a label nor as a reward; answers bought before it are kept."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"sometimes_{value.strip('-')}.py").write_text(SOMETIMES.format(value=value))
    oracle = f"python:sometimes_{value.strip('-')}:score"
    labels = outputs(finished, 2, "label")
    told = refused(4, *on(finished, "label", iteration=2), "--force", "--oracle", oracle, "--unit-size", 1)
    assert "p0" in told
    assert value.strip("-") in told
    assert outputs(finished, 2, "label") == labels
    evaluation = outputs(finished, 2, "evaluate")
    told = refused(4, *on(finished, "evaluate", iteration=2), "--force", "--scorer", oracle)
    assert value.strip("-") in told
    assert outputs(finished, 2, "evaluate") == evaluation


def test_a_log_probability_that_is_none_is_named(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = logps.response_logps

    def spoiled(model: Any, batch: Any) -> torch.Tensor:
        found = real(model, batch)
        found[-1] = torch.nan
        return found

    before = outputs(finished, 2, "evaluate")
    monkeypatch.setattr(logps, "response_logps", spoiled)
    told = refused(1, *on(finished, "evaluate", iteration=2), "--force")
    assert "log-probability" in told
    assert "/i002/r" in told
    assert outputs(finished, 2, "evaluate") == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_overflow_in_the_model(tmp_path: Path, small_model: Path, prompts_file: Path, dtype: str) -> None:
    """Each is a number, and the sums over them are none."""
    model = Path(shutil.copytree(small_model, tmp_path / "model"))
    tensors = load_file(model / "model.safetensors")
    for name in tensors:
        if "lm_head" in name:
            tensors[name] = torch.full_like(tensors[name], 3e38)
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    run = small_run(tmp_path / "run", model, prompts_file, model__dtype=dtype)
    told = refused(4, *on(run, "generate"))
    assert "the model's predictions are no numbers" in told
    assert ("--dtype float32" in told) is (dtype == "bfloat16")
    assert not list((run / "iter-001").glob("generate/responses-*"))
