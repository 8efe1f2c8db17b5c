"""When memory runs out in training, the updates stay what they were."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_dpo
import test_sft_training
import torch

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.base.settings import SftSettings, TrainSettings

SETTINGS = {"num_train_epochs": 2, "learning_rate": 1e-3, "warmup_steps": 0, "lr_scheduler_type": "constant"}


def limit(model: Any, rows: int, where: str) -> list[int]:
    """No more than so many rows fit, in the forward pass or behind the first gradients of the backward pass."""
    failed: list[int] = []
    size = [0]

    def too_many() -> None:
        if size[0] > rows:
            failed.append(size[0])
            raise torch.OutOfMemoryError("CUDA out of memory")

    def forward(module: Any, args: Any, kwargs: Any) -> None:
        if torch.is_grad_enabled():
            size[0] = len(kwargs.get("input_ids", args[0] if args else ()))
            if where == "forward":
                too_many()

    def backward(gradient: Any) -> None:
        if where == "backward":
            too_many()

    model.register_forward_pre_hook(forward, with_kwargs=True)
    learnt = [value for value in model.parameters() if value.requires_grad]
    learnt[len(learnt) // 2].register_hook(backward)
    return failed


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def assert_alike(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], start: dict[str, torch.Tensor]
) -> None:
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=0, atol=2e-5), name
    assert max((expected[name] - start[name]).abs().max() for name in start) > 1e-3, "else nothing was learnt"


@pytest.mark.parametrize(("where", "accumulation"), [("forward", 1), ("backward", 2)])
def test_preferences(make_policy: Callable[..., Any], tmp_path: Path, where: str, accumulation: int) -> None:
    """Batches of 5 pairs and a last one of 3, of which 2 fit: in parts of 2, 2 and 1, and of 2 and 1."""
    rows = test_dpo.examples(13)
    settings = TrainSettings(**SETTINGS, per_device_train_batch_size=5, gradient_accumulation_steps=accumulation)
    policy = make_policy()
    start = weights(policy)
    whole = test_dpo.train(policy, rows, settings, scratch=tmp_path)
    expected = weights(policy)
    assert whole.rows_that_fit is None
    limited = make_policy()
    failed = limit(limited, 4, where)  # chosen and rejected
    found = test_dpo.train(limited, rows, settings, scratch=tmp_path)
    assert failed == [10], "once, then no more"
    assert found.rows_that_fit == 2
    assert_alike(weights(limited), expected, start)
    for row, other in zip(found.metrics, whole.metrics, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
        assert row["num_tokens"] == other["num_tokens"]
        for name in ("rewards/margins", "rewards/accuracies", "logps/chosen"):
            assert row[name] == pytest.approx(other[name], abs=1e-4), name


@pytest.mark.parametrize("lora_r", [None, 4])
def test_examples(model_folder: Callable[..., Path], tmp_path: Path, lora_r: int | None) -> None:
    folder = model_folder("llama")
    rows = test_sft_training.examples(13)
    settings = SftSettings(**SETTINGS, per_device_train_batch_size=5, save_steps=100)
    model = test_sft_training.trainable(folder, lora_r)
    start = weights(model)
    whole = test_sft_training.train(model, folder, rows, tmp_path, settings=settings)
    limited = test_sft_training.trainable(folder, lora_r)
    assert limit(limited, 2, "backward") == []
    found = test_sft_training.train(limited, folder, rows, tmp_path, settings=settings)
    assert found.rows_that_fit == 2
    assert_alike(weights(limited), weights(model), start)
    assert [row["num_tokens"] for row in found.metrics] == [row["num_tokens"] for row in whole.metrics]


def test_what_does_not_fit_alone_is_named(make_policy: Callable[..., Any], tmp_path: Path) -> None:
    policy = make_policy()
    before = weights(policy)
    limit(policy, 1, "forward")
    with pytest.raises(ActiveDPOError, match="memory does not suffice for step 1") as caught:
        test_dpo.train(policy, test_dpo.examples(4), scratch=tmp_path)
    assert len(caught.value.details) == 1
    assert "--gradient-checkpointing" in str(caught.value.hint)
    assert all(torch.equal(value, before[name]) for name, value in weights(policy).items())


def test_all_weights_in_the_middle_of_an_update_are_not_halved(
    model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """What was added up before the failure can not be told apart from what the failed pass has added to it."""
    folder = model_folder("llama")
    settings = SftSettings(**SETTINGS, per_device_train_batch_size=1, gradient_accumulation_steps=2, save_steps=100)
    model = test_sft_training.trainable(folder)
    rows = [row for row in test_sft_training.examples(40) if len(row.token_ids) == 7]
    passes: list[int] = []

    def fail(gradient: Any) -> None:
        passes.append(1)
        if len(passes) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    next(model.parameters()).register_hook(fail)
    with pytest.raises(ActiveDPOError, match="memory does not suffice"):
        test_sft_training.train(model, folder, rows, tmp_path, settings=settings)
