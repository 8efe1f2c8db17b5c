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
