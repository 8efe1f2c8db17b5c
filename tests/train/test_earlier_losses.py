"""Iterations that an earlier version trained otherwise than by Eq. 2 are named."""

import json
from pathlib import Path

from command_line import done, on


def test_an_iteration_with_a_load_balancing_loss_is_named(finished: Path) -> None:
    path = finished / "iter-001" / "train" / "metrics.jsonl"
    words = (*on(finished, "train", iteration=2), "--force")
    assert "load-balancing" not in done(*words).stderr
    path.write_text("".join(json.dumps(json.loads(line) | {"aux_loss": 2.1}) + "\n" for line in path.open()))
    said = done(*words).stderr
    assert "iteration 1 was trained with the mixture of experts' load-balancing loss" in said
    assert "--iteration 1 --force" in said


def test_an_iteration_with_noise_of_a_router_is_named(finished: Path) -> None:
    """Its first step has a reward, though the policy was its reference."""
    path = finished / "iter-001" / "train" / "metrics.jsonl"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | {"rewards/chosen": -0.009}), *others, ""]))
    said = done(*on(finished, "train", iteration=2), "--force").stderr
    assert "iteration 1 was trained with noise that the model's architecture adds in training" in said
    assert "--iteration 1 --force" in said


def test_a_reference_with_a_load_balancing_loss_is_named(finished: Path) -> None:
    folder = finished / "reference" / "sft"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "aux_loss": 2.1}\n')
    said = done(*on(finished, "train", iteration=2), "--force").stderr
    assert "the reference was fine-tuned with the mixture of experts' load-balancing loss" in said
    assert "sft --run OTHER_NAME" in said
