"""The policy that is measured: a real model or one with random weights, under a random LoRA adapter."""

import difflib
from dataclasses import dataclass
from typing import Literal

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.bench.workload import Workload
from activedpo_cli.models.loading import DTYPES, context_length, context_length_at, load_base_model, pick_device
from activedpo_cli.models.random_models import ARCHITECTURES, random_base_model, random_config, random_policy
from activedpo_cli.models.resolve import ModelLocation, is_adapter_folder, resolve_model


@dataclass(frozen=True, kw_only=True)
class PolicyRequest:
    """Which model, and how it is loaded and adapted.

    `dtype` auto is a checkpoint's own, and for random weights float32 on the CPU and bfloat16 elsewhere.
    """

    model: str
    dtype: Literal["auto", "float32", "bfloat16"]
    device: str
    attn_implementation: str
    lora_r: int
    lora_alpha: float
    lora_modules: str | list[str]
    seed: int


def load_policy(request: PolicyRequest, workload: Workload) -> PeftModel:
    """The policy, frozen and in evaluation mode.

    Raises UsageError before weights are loaded where the workload's lengths don't fit, and later for layers that the
    model does not have; ActiveDPOError or InvalidDataError where there is no such model.
    """
    device = pick_device(request.device)
    if request.model in ARCHITECTURES:
        workload.check_fits(context_length(random_config(request.model)))
        base_model = _random_model(request, device)
    else:
        location = _resolve(request.model)
        workload.check_fits(context_length_at(location.source, location.revision))
        base_model = load_base_model(
            location.source,
            revision=location.revision,
            dtype=request.dtype,
            device=device,
            attn_implementation=request.attn_implementation,
        )
    return random_policy(
        base_model,
        r=request.lora_r,
        lora_alpha=request.lora_alpha,
        target_modules=request.lora_modules,
        seed=derive_seed(request.seed, "bench", "adapter"),
    )


def _random_model(request: PolicyRequest, device: torch.device) -> PreTrainedModel:
    default = torch.float32 if device.type == "cpu" else torch.bfloat16
    return random_base_model(
        request.model,
        seed=derive_seed(request.seed, "bench", "weights"),
        dtype=DTYPES.get(request.dtype, default),
        device=device,
        attn_implementation=request.attn_implementation,
    )


def _resolve(name: str) -> ModelLocation:
    try:
        location = resolve_model(name)
    except ActiveDPOError as error:
        close = difflib.get_close_matches(name, ARCHITECTURES, n=1)
        known = f"with random weights: {', '.join(ARCHITECTURES)}"
        hint = f"--model {close[0]}" if close else error.hint
        raise type(error)(error.message, details=[*error.details, known], hint=hint) from error
    if location.path is not None and is_adapter_folder(location.path):
        raise InvalidDataError(
            f"`{name}` is a LoRA adapter, and here a random one is put on a whole model",
            hint="pass its base model with --model, and its rank and layers with --lora-r and --lora-modules",
        )
    return location
