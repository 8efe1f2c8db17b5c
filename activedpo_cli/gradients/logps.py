"""Summed log-probabilities of responses."""

import inspect
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from activedpo_cli.gradients.batch import ResponseBatch
from activedpo_cli.gradients.model_state import evaluation_mode
from activedpo_cli.shapes import Float


def response_logps(model: nn.Module, batch: ResponseBatch) -> Float[Tensor, " examples"]:
    """Log π(y | x) summed over response tokens, without dropout and without gradients.

    Nats; float32, or float64 for a float64 model. An empty response has 0. The adapters are used as they are switched.
    """
    with torch.no_grad(), evaluation_mode(model):
        return summed_logps(model, batch)


def summed_logps(model: nn.Module, batch: ResponseBatch) -> Float[Tensor, " examples"]:
    """`response_logps` in whatever mode the model is, differentiable.

    Positions count from the attention mask, so that the side of the padding does not matter. Logits are computed only
    from the token before the earliest response token on.
    """
    is_target = batch.response_mask[:, 1:]
    columns = is_target.any(dim=0).nonzero()
    first = int(columns[0]) if len(columns) else is_target.shape[1]
    logits = _logits_from(model, batch, first)
    targets, is_target = batch.input_ids[:, first + 1 :], is_target[:, first:]
    dtype = torch.promote_types(logits.dtype, torch.float32)
    logits = logits[:, :-1].to(dtype)
    token_logps = logits.gather(-1, targets[..., None]).squeeze(-1) - logits.logsumexp(-1)
    return token_logps.where(is_target, 0).sum(dim=1)


def _logits_from(model: nn.Module, batch: ResponseBatch, first: int) -> Float[Tensor, "examples kept vocabulary"]:
    """Logits at position `first` and after."""
    length = batch.input_ids.shape[1]
    options: dict[str, Any] = {
        "position_ids": (batch.attention_mask.cumsum(dim=1) - 1).clamp_min(0),
        "logits_to_keep": length - first,
        "use_cache": False,
    }
    base_model = model.get_base_model() if isinstance(model, PeftModel) else model
    accepted = inspect.signature(base_model.forward).parameters
    options = {name: value for name, value in options.items() if name in accepted}
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **options).logits
    return logits if "logits_to_keep" in options else logits[:, first:]
