"""A base that is kept from stage to stage is, each time, as freshly loaded."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from activedpo_cli.base.settings import AdapterSettings
from activedpo_cli.models.adapters import attach_adapter, create_initial_adapter
from activedpo_cli.models.kept_base import KeptBase


def load(path: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(path).eval().requires_grad_(False)


def state(model: PreTrainedModel) -> dict[str, tuple[bool, torch.Tensor]]:
    return {name: (parameter.requires_grad, parameter.clone()) for name, parameter in model.named_parameters()}


def test_the_adapter_of_before_is_gone_and_nothing_else_changed(small_model: Path, tmp_path: Path) -> None:
    kept, loads = KeptBase(), []

    def loaded() -> PreTrainedModel:
        loads.append(1)
        return load(small_model)

    first = kept.model("a", loaded)
    before, modules = state(first), [type(module) for module in first.modules()]
    create_initial_adapter(
        first, AdapterSettings(r=2, lora_alpha=4.0), seed=0, destination=tmp_path / "adapter", base_name="x"
    )
    policy = attach_adapter(first, tmp_path / "adapter", trainable=True)
    kept.attached(policy)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_" in name:
                parameter += 1.0
    again = kept.model("a", loaded)
    assert again is first
    assert len(loads) == 1
    assert [type(module) for module in again.modules()] == modules
    assert state(again).keys() == before.keys()
    for name, (needs, values) in state(again).items():
        assert needs == before[name][0]
        assert torch.equal(values, before[name][1])
    assert not hasattr(again, "peft_config")


def test_another_base_takes_its_place(small_model: Path) -> None:
    kept = KeptBase()
    first = kept.model(("a", "float32"), lambda: load(small_model))
    second = kept.model(("a", "bfloat16"), lambda: load(small_model).bfloat16())
    assert second is not first
    assert second.dtype == torch.bfloat16
    with pytest.raises(OSError, match="gone"):
        kept.model("b", lambda: (_ for _ in ()).throw(OSError("gone")))
    assert kept.model("c", lambda: load(small_model)) is not second, "nothing half-loaded is handed out"
