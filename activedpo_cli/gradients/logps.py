"""Summed log-probabilities of responses."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.gradients.batch import ResponseBatch
from activedpo_cli.gradients.model_state import evaluation_mode
from activedpo_cli.gradients.response_head import (
    ResponseHead,
    accepted_arguments,
    last_hidden_states,
    response_head,
    without_wrapper,
)

TOKENS_AT_ONCE = 64


def response_logps(model: nn.Module, batch: ResponseBatch) -> Float[Tensor, " examples"]:
    """Log π(y | x) summed over response tokens, without dropout and without gradients.

    Nats; float32, or float64 for a float64 model. An empty response has 0. The adapters are used as they are switched.
    """
    with torch.no_grad(), evaluation_mode(model):
        return summed_logps(model, batch)


def token_logps(model: nn.Module, batch: ResponseBatch) -> Float[Tensor, "examples targets"]:
    """Log π of each response token alone, without dropout and without gradients; 0 where a token is none of the response's.

    Nats. The last columns are those of the last tokens; how many there are before them is the model's business.
    """
    with torch.no_grad(), evaluation_mode(model):
        head = response_head(model)
        if head is None:
            return _by_own_logits(model, batch)
        return _by_head(backbone_states(model, batch), batch, head)


def response_logits(
    model: nn.Module, batch: ResponseBatch
) -> "Iterator[tuple[Float[Tensor, 'tokens vocabulary'], Int[Tensor, ' tokens']]]":
    """The logits from which each response token was drawn, and the tokens, some at a time and in order; in float32."""
    is_target = batch.response_mask[:, 1:]
    rows, positions = is_target.nonzero(as_tuple=True)
    targets = batch.input_ids[rows, positions + 1]
    with torch.no_grad(), evaluation_mode(model):
        head = response_head(model)
        whole = None if head is not None else model(**accepted_arguments(without_wrapper(model), _inputs(batch))).logits
        states = backbone_states(model, batch) if whole is None else whole
        for start in range(0, len(targets), TOKENS_AT_ONCE):
            part = slice(start, start + TOKENS_AT_ONCE)
            found = states[rows[part].to(states.device), positions[part].to(states.device)]
            logits = found if head is None else head.logits(found)
            yield logits.float(), targets[part].to(logits.device)


def summed_logps(
    model: nn.Module, batch: ResponseBatch, states: Float[Tensor, "examples tokens hidden"] | None = None
) -> Float[Tensor, " examples"]:
    """`response_logps` in whatever mode the model is, differentiable.

    Logits are computed for response tokens only, a chunk at a time, where the model's output layer allows it; from
    `states`, the batch's `backbone_states`, where they are known already.
    """
    head = response_head(model)
    if head is None:
        return _by_own_logits(model, batch).sum(dim=1)
    states = backbone_states(model, batch) if states is None else states
    return _by_head(states, batch, head).sum(dim=1)


def backbone_states(model: nn.Module, batch: ResponseBatch) -> Float[Tensor, "examples tokens hidden"]:
    """The last hidden state of every token, in whatever mode the model is, differentiable."""
    return last_hidden_states(model, **_inputs(batch))


def _by_head(
    states: Float[Tensor, "examples tokens hidden"], batch: ResponseBatch, head: ResponseHead
) -> Float[Tensor, "examples targets"]:
    is_target = batch.response_mask[:, 1:]
    rows, positions = is_target.nonzero(as_tuple=True)
    at_targets = states[rows.to(states.device), positions.to(states.device)]
    logps = head.logps(at_targets, batch.input_ids[rows, positions + 1])
    return torch.zeros(is_target.shape, dtype=logps.dtype, device=logps.device).index_put((rows, positions), logps)


def _by_own_logits(model: nn.Module, batch: ResponseBatch) -> Float[Tensor, "examples targets"]:
    """By the model's whole forward pass, with logits from the token before the earliest response token on."""
    is_target = batch.response_mask[:, 1:]
    columns = is_target.any(dim=0).nonzero()
    first = int(columns[0]) if len(columns) else is_target.shape[1]
    inputs = _inputs(batch) | {"logits_to_keep": batch.input_ids.shape[1] - first}
    inputs = accepted_arguments(without_wrapper(model), inputs)
    logits = model(**inputs).logits
    logits = logits if "logits_to_keep" in inputs else logits[:, first:]
    targets, is_target = batch.input_ids[:, first + 1 :], is_target[:, first:]
    logits = logits[:, :-1].to(targets.device, torch.promote_types(logits.dtype, torch.float32))
    logps = logits.gather(-1, targets[..., None]).squeeze(-1) - logits.logsumexp(-1)
    return logps.where(is_target, 0)


def _inputs(batch: ResponseBatch) -> dict[str, Any]:
    """What the model is given; positions count from the attention mask, so that the side of the padding does not matter.

    Behind right padding no real token can see a padded one, so no mask is needed, and attention runs its causal kernel.
    """
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
    if batch.side == "left":
        inputs["attention_mask"] = batch.attention_mask
        inputs["position_ids"] = (batch.attention_mask.cumsum(dim=1) - 1).clamp_min(0)
    return inputs
