"""Load the tiny models of `small_models` and give them adapters that differ from the base."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from activedpo_cli.base.settings import AdapterSettings
from activedpo_cli.models.loading import load_base_model

CPU = torch.device("cpu")
ADAPTER = AdapterSettings(r=4, lora_alpha=8)


def load(folder: Path, **changes: Any) -> PreTrainedModel:
    """A base model on the CPU."""
    options: dict[str, Any] = {"dtype": "auto", "device": CPU, "attn_implementation": "sdpa"} | changes
    return load_base_model(str(folder), **options)


def disturb(policy: PeftModel, seed: int = 1, scale: float = 0.3) -> PeftModel:
    """Give every adapter weight another value, as if an earlier iteration had trained it."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in policy.named_parameters():
        if "lora_" in name:
            parameter.data += scale * torch.randn(parameter.shape, generator=generator)
    return policy
