"""Switches the base's dropout off, so that training sees what sampling sees; the adapter's own stays."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
