"""A policy whose layers lie on two devices. The second one is torch's without memory, which refuses to be mixed with others.

So places are tried here, and numbers are where they stay on the first device; no machine with two GPUs was at hand.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from command_line import on, refused
from peft import PeftModel
from small_runs import small_run
from torch.utils._python_dispatch import TorchDispatchMode

from activedpo_cli.base.errors import ActiveDPOError, UsageError
from activedpo_cli.gradients.batch import pad_responses
from activedpo_cli.gradients.forward_columns import forward_columns
from activedpo_cli.gradients.logps import token_logps
from activedpo_cli.gradients.per_response import response_gradients
from activedpo_cli.gradients.projections import make_projection
from activedpo_cli.gradients.quality import cosine_errors
from activedpo_cli.gradients.sums_by_device import SumsByDevice
from activedpo_cli.models.loading import pick_device
from activedpo_cli.models.placement import move, placement, refuse_offloaded
from activedpo_cli.models.random_models import random_base_model, random_policy

CPU, SECOND = torch.device("cpu"), torch.device("meta")
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}


class Fetching(TorchDispatchMode):
    """Lets what lies on the second device come back as ones, and answers what is asked of a value there with yes."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return True if args[0].dtype == torch.bool else 1
        if func is torch.ops.aten._to_copy.default and args[0].is_meta and kwargs.get("device") == CPU:
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return func(*args, **kwargs)


def policy(*, is_split: bool, head: torch.device = SECOND) -> PeftModel:
    base = random_base_model("tiny-llama-15m", seed=0, dtype=torch.float32, device=CPU, **SIZES)
    made = random_policy(base, r=4, lora_alpha=8, target_modules="all-linear", seed=0)
    if is_split:
        parts = {"model.embed_tokens": CPU, "model.norm": SECOND, "lm_head": head, "model.rotary_emb": CPU}
        parts |= {f"model.layers.{number}": CPU if number < 2 else SECOND for number in range(4)}
        for name, device in parts.items():
            module = base.get_submodule(name).to(device)
            add_hook_to_module(module, AlignDevicesHook(execution_device=device))
        base.hf_device_map = parts
    return made


BATCH = pad_responses([[5, 6, 7], [8, 9]], [[10, 11], [12, 13, 14]], 0, CPU)


@pytest.mark.parametrize("head", [SECOND, CPU])
def test_features_are_summed_where_gradients_are_and_come_home(head: torch.device) -> None:
    """The head is with the last layers, or with the embeddings, whose weights it may share."""
    split, projection = policy(is_split=True, head=head), make_projection("factored", 32, 0)
    with Fetching():
        found = response_gradients(split, BATCH, projection, exact_norms="always")
        errors = cosine_errors(split, BATCH, projection)
    assert found.features.device == found.logps.device == errors.device == CPU
    assert found.features.shape == (2, 32)


def test_columns_of_a_forward_pass_come_home() -> None:
    split = policy(is_split=True)
    with Fetching():
        found = forward_columns(split, BATCH, logps=True, hidden=True, mean_hidden=True)
        each = token_logps(split, BATCH)
    assert found.logps is not None
    assert found.logps.device == each.device == CPU


def test_sums_of_devices_are_added_in_one_order() -> None:
    values = [torch.randn(5, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    places = [SimpleNamespace(device=torch.device("cpu", number)) for number in (0, 1, 2, 3)]
    totals = []
    for order in ((0, 1, 2, 3), (3, 1, 0, 2)):
        sums = SumsByDevice((5,), torch.float32, CPU)
        for number in order:
            sums.beside(places[number]).add_(values[number])
        totals.append(sums.total())
    assert torch.equal(*totals)
    assert torch.equal(totals[0], values[0] + values[1] + values[2] + values[3])
    alone = SumsByDevice((5,), torch.float32, CPU)
    assert torch.equal(alone.total(), torch.zeros(5))
    assert alone.beside(values[0]) is alone.total(), "one device is not copied"


def test_a_split_model_is_not_moved_as_a_whole() -> None:
    split = policy(is_split=True)
    before = {name: weight.device for name, weight in split.named_parameters()}
    move(split, CPU)
    assert {name: weight.device for name, weight in split.named_parameters()} == before
    assert placement(policy(is_split=False)) == {}


@pytest.mark.parametrize("left", ["cpu", "disk"])
def test_parts_that_no_gpu_has_room_for_are_refused(left: str) -> None:
    split = policy(is_split=False)
    split.get_base_model().hf_device_map = {"model.layers.0": 0, "model.layers.1": left}
    with pytest.raises(ActiveDPOError, match=r"does not fit .* first `model\.layers\.1`"):
        refuse_offloaded(split, "a model")


def test_gpus_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="torch sees none"):
        pick_device("balanced", may_spread=True)
    with pytest.raises(UsageError, match="for stages of a run"):
        pick_device("balanced")


def test_several_processes_do_not_each_take_all_gpus(small_model: Path, prompts_file: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", small_model, prompts_file)
    assert "one of several processes" in refused(2, *on(run, "generate"), "--device", "balanced", "--shard", "0/2")
