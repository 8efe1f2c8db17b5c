"""A model whose layers lie on several devices of a machine, in one process; accelerate carries tensors between them."""

from typing import Any

import torch
from peft import PeftModel
from torch import nn

from activedpo_cli.base.errors import ActiveDPOError

BALANCED = "balanced"
"""The word for `--device` that shares a model's layers out over all GPUs of the machine."""
OFFLOADED = ("cpu", "disk", "meta")


def placement(model: nn.Module) -> dict[str, Any]:
    """The devices of a model's parts by their names; empty where it lies on one device as a whole."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    found = dict(getattr(base, "hf_device_map", None) or {})
    return found if len(set(map(str, found.values()))) > 1 else {}


def refuse_offloaded(model: nn.Module, name: str) -> None:
    """Raise ActiveDPOError where parts of a model were left to the CPU or the disk, from which passes would fetch them."""
    left = [part for part, device in placement(model).items() if str(device) in OFFLOADED]
    if left:
        raise ActiveDPOError(
            f"`{name}` does not fit on the GPUs of this machine: {len(left)} of its parts are left, first `{left[0]}`",
            hint="more or larger GPUs, `--dtype bfloat16`, or `--quantization 4bit` in a run of its own",
        )


def move(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device, unless it lies on several."""
    if not placement(model):
        model.to(device)
