"""Switches off what the base does in training alone, so that training sees what sampling sees; the adapter's dropout stays.

Dropout is not all: routers of a mixture add noise, and some layers take another path in training mode.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.tuners.lora import LoraLayer


@contextmanager
def base_dropout_off(policy: torch.nn.Module) -> Iterator[None]:
    """Set every dropout probability but those of LoRA to 0, in modules and plain numbers; put them back on leaving."""
    saved: list[tuple[torch.nn.Module, str, float]] = []
    for name, module in policy.named_modules():
        if "lora_dropout" in name:
            continue
        for field, value in list(vars(module).items()):
            is_probability = field == "p" if isinstance(module, torch.nn.Dropout) else "drop" in field
            if isinstance(value, float) and is_probability:
                saved.append((module, field, value))
                setattr(module, field, 0.0)
    try:
        yield
    finally:
        for module, field, value in saved:
            setattr(module, field, value)


def base_in_evaluation_mode(model: torch.nn.Module) -> None:
    """Put the base's modules in evaluation mode; call it for each batch, since trainers change modes as they begin one.

    The adapter's modules stay as they are, and so do the outermost one, by which a trainer tells that it trains, those
    that checkpoint, which do so in training mode only and compute again in the backward pass, and layers with packed
    weights, whose kernels for evaluation may have no backward pass.
    """
    for name, module in model.named_modules():
        keeps_mode = (
            not name
            or "lora_" in name
            or isinstance(module, LoraLayer)
            or getattr(module, "gradient_checkpointing", False)
            or any(not weight.is_floating_point() for weight in module.parameters(recurse=False))
        )
        if not keeps_mode:
            module.training = False
