"""Small finished runs, made once and copied by whoever changes them."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are so small that threads only cost

import pytest
from command_line import RULE, done, on

SMALL = {
    "generate.num_prompts": 6,
    "generate.num_responses": 3,
    "generate.max_new_tokens": 6,
    "generate.unit_size": 2,
    "generate.stop_token_ids": list(range(40)),  # else a random model hardly ever ends a response by itself
    "adapter.r": 2,
    "adapter.lora_alpha": 8,
    "featurize.proj_dim": 64,
    "featurize.unit_size": 4,
    "featurize.batch_size": 4,
    "select.budget": 4,
    "label.unit_size": 2,
    "train.per_device_train_batch_size": 2,
    "train.num_train_epochs": 1,
    "train.learning_rate": 0.01,
    "evaluate.num_responses": 2,
    "evaluate.unit_size": 2,
}
PROMPTS = [f"Question {number}: what is {number} times {number + 3}?" for number in range(24)]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACTIVEDPO_RUN", raising=False)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with 2 layers of width 32 and a token for every byte."""
    from small_models import save_small_model

    return save_small_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 prompts."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return path


def small_run(path: Path, model: Path, prompts: Path, oracle: str = RULE, **changed: Any) -> Path:
    """A run that has been made and not begun; `changed` spells the dot of a setting as two underscores."""
    settings = SMALL | {"label.oracle": oracle} | {key.replace("__", "."): value for key, value in changed.items()}
    assignments = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    done(*on(path, "init"), "--model", model, "--prompts", prompts, "--eval-prompts", 4, *assignments, "--quiet")
    return path


@pytest.fixture(scope="session")
def finished_original(tmp_path_factory: pytest.TempPathFactory, small_model: Path, prompts_file: Path) -> Path:
    """Two finished iterations; read it, never change it."""
    run = small_run(tmp_path_factory.mktemp("runs") / "finished", small_model, prompts_file)
    done(*on(run, "run"), "--iterations", 2, "--quiet")
    return run


@pytest.fixture
def finished(finished_original: Path, tmp_path: Path) -> Path:
    """A copy of two finished iterations, modification times included."""
    return Path(shutil.copytree(finished_original, tmp_path / "finished"))


@pytest.fixture
def new_run(tmp_path: Path, small_model: Path, prompts_file: Path) -> Path:
    """A run without any stage."""
    return small_run(tmp_path / "new", small_model, prompts_file)
