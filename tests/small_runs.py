"""Make a small run that has not begun."""

import json
from pathlib import Path
from typing import Any

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
    "featurize.tokens_per_batch": 256,
    "select.budget": 4,
    "label.unit_size": 2,
    "train.per_device_train_batch_size": 2,
    "train.num_train_epochs": 1,
    "train.learning_rate": 0.01,
    "evaluate.num_responses": 2,
    "evaluate.unit_size": 2,
}


def small_run(
    path: Path, model: Path, prompts: Path, oracle: str = RULE, eval_prompts: int = 4, **changed: Any
) -> Path:
    """A run that has been made and not begun; `changed` spells the dot of a setting as two underscores."""
    settings = SMALL | {"label.oracle": oracle} | {key.replace("__", "."): value for key, value in changed.items()}
    assignments = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    done(
        *on(path, "init"),
        "--model",
        model,
        "--prompts",
        prompts,
        "--eval-prompts",
        eval_prompts,
        *assignments,
        "--quiet",
    )
    return path


def pool_labelled_once(folder: Path, model: Path, budget: int, *asked: object, typed: str) -> Path:
    """A run on ten pairs of a file, in `folder`, where this process stands.

    People have been asked about four of them, with these options and typing this, and `budget` others are selected.
    """
    lines = [{"prompt": f"Question {n // 2}", "response_a": f"yes {n}", "response_b": f"no, {n}"} for n in range(10)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = (folder / "run").absolute()
    small = ("--set", "adapter.r=2", "--set", "featurize.proj_dim=16", "--budget", 4, "--quiet")
    done(*on(run, "select"), "--pool", "pairs.jsonl", "--model", model, *small)
    done(*on(run, "label"), *asked, typed=typed)
    done(*on(run, "train"), "--epochs", 1, "--quiet")
    for stage in ("generate", "featurize"):
        done(*on(run, stage, iteration=2), "--quiet")
    done(*on(run, "select", iteration=2), "--budget", budget, "--quiet")
    return run
