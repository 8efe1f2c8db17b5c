"""From hidden states at response positions to log-probabilities, without logits for any other token.

A causal language model is a backbone and an output layer. Where that is all there is (one probe says so), logits are
computed a chunk of response tokens at a time and thrown away; their gradient with respect to the hidden states,
(onehot − softmax) W, is taken in the same step, so a chunk is the only thing of vocabulary width that ever exists.
"""

import inspect
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.gradients.model_state import evaluation_mode

ENTRIES_AT_ONCE = 2**24
PROBE_LENGTH = 4
PROBE_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}

_heads: "weakref.WeakKeyDictionary[nn.Module, tuple[nn.Module, ResponseHead | None]]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class ResponseHead:
    """The output layer of a causal language model; `softcap` is Gemma 2's bound on logits."""

    weight: Float[Tensor, "vocabulary hidden"]
    bias: Float[Tensor, " vocabulary"] | None
    softcap: float | None

    def logps(
        self, hidden: Float[Tensor, "positions hidden"], targets: Int[Tensor, " positions"]
    ) -> Float[Tensor, " positions"]:
        """Log π of each target after its hidden state, differentiable; float32, or float64 for a float64 model."""
        there = self.weight.device  # a model that lies on several devices may end on another one
        found: Tensor = _ChunkedLogps.apply(hidden.to(there), targets.to(there), self)
        return found.to(targets.device)

    def logits(self, hidden: Float[Tensor, "positions hidden"]) -> Float[Tensor, "positions vocabulary"]:
        """Logits in at least float32, a new tensor."""
        logits = nn.functional.linear(hidden.to(self.weight.device), self.weight, self.bias)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits if self.softcap is None else logits.div_(self.softcap).tanh_().mul_(self.softcap)


def response_head(model: nn.Module) -> ResponseHead | None:
    """The output layer, None where the model's logits are not simply its image of the backbone's last hidden states.

    This is found out once for each model, by comparing with the model's own logits of a few tokens.
    """
    base_model = without_wrapper(model)
    layer = base_model.get_output_embeddings()
    known = _heads.get(base_model)
    if known is None or known[0] is not layer:  # an adapter may have been put on it since
        known = _heads[base_model] = (layer, _probed_head(base_model))
    return known[1]


def last_hidden_states(model: nn.Module, **inputs: Any) -> Float[Tensor, "examples tokens hidden"]:
    """What the backbone makes of a batch; arguments that its architecture does not know are left out."""
    base_model = without_wrapper(model)
    backbone = _backbone(base_model)
    if backbone is None:
        inputs = accepted_arguments(base_model, inputs) | {"output_hidden_states": True}
        states: Tensor = base_model(**inputs).hidden_states[-1]
    else:
        states = backbone(**accepted_arguments(backbone, inputs)).last_hidden_state
    return states


def accepted_arguments(module: nn.Module, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that a module's `forward` names."""
    names = inspect.signature(module.forward).parameters
    return {name: value for name, value in arguments.items() if name in names}


def without_wrapper(model: nn.Module) -> Any:
    """The language model inside a PEFT wrapper; its layers keep their adapters."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _backbone(base_model: Any) -> nn.Module | None:
    backbone = getattr(base_model, getattr(base_model, "base_model_prefix", ""), None)
    return backbone if isinstance(backbone, nn.Module) else None


def _probed_head(base_model: Any) -> ResponseHead | None:
    layer = base_model.get_output_embeddings()
    if type(layer) is not nn.Linear or _backbone(base_model) is None:
        return None
    softcap = getattr(base_model.config.get_text_config(), "final_logit_softcapping", None)
    head = ResponseHead(layer.weight, layer.bias, softcap)
    probe = torch.arange(PROBE_LENGTH, device=layer.weight.device)[None] % len(layer.weight)
    with torch.no_grad(), evaluation_mode(base_model):
        expected = base_model(**accepted_arguments(base_model, {"input_ids": probe, "use_cache": False})).logits
        found = head.logits(last_hidden_states(base_model, input_ids=probe, use_cache=False)[0])
    error, scale = (found - expected[0].to(found.device)).abs().max(), expected.abs().max().to(found.device)
    return head if error <= PROBE_TOLERANCE.get(layer.weight.dtype, 2e-2) * scale else None


class _ChunkedLogps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: ResponseHead) -> Tensor:
        wants_gradient = ctx.needs_input_grad[0]
        # A GPU reads all weights for every chunk, so few large ones are better there.
        chunk = max(1, (4 if hidden.is_cuda else 1) * ENTRIES_AT_ONCE // len(head.weight))
        logps = hidden.new_empty(len(hidden), dtype=torch.promote_types(hidden.dtype, torch.float32))
        hidden_gradients = torch.empty_like(hidden) if wants_gradient else None
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits, target = head.logits(hidden[part]), targets[part, None]
            normaliser = logits.logsumexp(dim=-1, keepdim=True)
            logps[part] = (logits.gather(-1, target) - normaliser).squeeze(-1)
            if hidden_gradients is not None:
                hidden_gradients[part] = _logit_gradients(logits, normaliser, target, head).to(hidden) @ head.weight
        ctx.save_for_backward(hidden_gradients)
        return logps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (hidden_gradients,) = ctx.saved_tensors
        return (hidden_gradients * gradients[0][:, None]).to(hidden_gradients), None, None


def _logit_gradients(logits: Tensor, normaliser: Tensor, target: Tensor, head: ResponseHead) -> Tensor:
    """∂ log π(target) / ∂ (logits before the soft cap) = (onehot − softmax) · (1 − tanh²)."""
    slope = None if head.softcap is None else 1 - (logits / head.softcap).square()
    gradients = (logits - normaliser).exp_().neg_()
    gradients.scatter_add_(-1, target, torch.ones_like(target, dtype=gradients.dtype))
    return gradients if slope is None else gradients.mul_(slope)
