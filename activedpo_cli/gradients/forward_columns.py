"""What one forward pass says about responses, without any gradient: log-probabilities and last hidden states."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from activedpo_cli.base.shapes import Float
from activedpo_cli.gradients.batch import ResponseBatch
from activedpo_cli.gradients.logps import backbone_states, summed_logps
from activedpo_cli.gradients.model_state import evaluation_mode


@dataclass(frozen=True)
class ForwardBatch:
    """Columns of a batch; None where one was not asked for. float32, or float64 for a float64 model.

    `logps` are log π(y | x) summed over response tokens, in nats; `hidden` is what the output layer receives, so behind
    the final norm, at the response's last token, a generated end-of-text token included; `mean_hidden` is its average over
    the response's tokens.
    """

    logps: Float[Tensor, " examples"] | None
    hidden: Float[Tensor, "examples hidden_size"] | None
    mean_hidden: Float[Tensor, "examples hidden_size"] | None = None


def forward_columns(
    model: nn.Module, batch: ResponseBatch, *, logps: bool, hidden: bool, mean_hidden: bool = False
) -> ForwardBatch:
    """The columns asked for, by one forward pass without dropout. The adapters are used as they are switched.

    An empty response has 0 as its log-probability, the hidden state of its prompt's last token, and 0 as its mean.
    """
    with torch.no_grad(), evaluation_mode(model):
        states = backbone_states(model, batch) if hidden or mean_hidden else None
        return ForwardBatch(
            logps=summed_logps(model, batch, states) if logps else None,
            hidden=_at_last_token(states, batch) if hidden and states is not None else None,
            mean_hidden=_mean_over_response(states, batch) if mean_hidden and states is not None else None,
        )


def _at_last_token(
    states: Float[Tensor, "examples tokens hidden_size"], batch: ResponseBatch
) -> Float[Tensor, "examples hidden_size"]:
    places = torch.arange(batch.attention_mask.shape[1], device=batch.attention_mask.device)
    last = (batch.attention_mask * places).argmax(dim=1).to(states.device)
    found = states[torch.arange(len(states), device=states.device), last]
    return found.to(torch.promote_types(found.dtype, torch.float32))


def _mean_over_response(
    states: Float[Tensor, "examples tokens hidden_size"], batch: ResponseBatch
) -> Float[Tensor, "examples hidden_size"]:
    mask = batch.response_mask.to(states.device, torch.promote_types(states.dtype, torch.float32))
    return torch.einsum("ntd,nt->nd", states.to(mask.dtype), mask) / mask.sum(dim=1, keepdim=True).clamp(min=1)
