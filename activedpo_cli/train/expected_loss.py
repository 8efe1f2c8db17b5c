"""The losses of training as functions of log-probabilities, which the audit holds the trainers' own against.

A trainer may add to its loss what an architecture suggests, such as the load-balancing loss of a mixture of experts.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from activedpo_cli.base.settings import TrainSettings
from activedpo_cli.base.shapes import Bool, Float

ROUNDINGS = 16
"""Roundings of the number format by which a sum over tokens may be off."""


@dataclass(frozen=True)
class ExpectedLoss:
    """The loss in nats (squared for IPO), and how far rounding alone may put another computation of it."""

    value: float
    tolerance: float

    def agrees(self, loss: float) -> bool:
        """Whether a computed loss is this one."""
        return abs(loss - self.value) <= self.tolerance


def preference_losses(
    chosen_ratios: Float[Tensor, " pairs"],
    rejected_ratios: Float[Tensor, " pairs"],
    chosen_tokens: Float[Tensor, " pairs"],
    rejected_tokens: Float[Tensor, " pairs"],
    settings: TrainSettings,
) -> Float[Tensor, " pairs"]:
    """The loss of each pair by its log-ratios log π − log π_ref, as `train.loss_type` names it.

    `sigmoid` is Eq. (2) of arXiv 2505.19241, `ipo` Eq. (17) of arXiv 2310.12036 on ratios by the token, `hinge` SLiC's
    (arXiv 2305.10425) on ratios, `robust` that of arXiv 2403.00409, and `cdpo` the cross-entropy with smoothed labels of
    Eric Mitchell's "A note on DPO with noisy preferences and relationship to IPO" (2023).
    """
    margins = settings.beta * (chosen_ratios - rejected_ratios)
    if settings.loss_type == "ipo":
        by_token = chosen_ratios / chosen_tokens - rejected_ratios / rejected_tokens
        return (by_token - 1 / (2 * settings.beta)) ** 2
    if settings.loss_type == "hinge":
        return (1 - margins).clamp(min=0)
    if settings.loss_type == "robust":
        wrong = settings.wrong_share
        return (wrong * logsigmoid(-margins) - (1 - wrong) * logsigmoid(margins)) / (1 - 2 * wrong)
    if settings.loss_type == "cdpo":
        wrong = settings.wrong_share
        return -(1 - wrong) * logsigmoid(margins) - wrong * logsigmoid(-margins)
    return -logsigmoid(margins)


def expected_preference_loss(
    logps: Float[Tensor, "responses tokens"],
    ref_logps: Float[Tensor, " responses"],
    is_answer: Bool[Tensor, "responses tokens"],
    settings: TrainSettings,
) -> ExpectedLoss:
    """The mean loss of pairs by the log-probability of each token; chosen responses come first, then rejected ones.

    Of π_ref the log-probability of each response suffices, the sum over its tokens.
    """
    sums = torch.stack([sums_of_logps(logps, is_answer), ref_logps.double()]).requires_grad_(True)
    (chosen, rejected), (ref_chosen, ref_rejected) = (row.chunk(2) for row in sums)
    chosen_tokens, rejected_tokens = is_answer.sum(dim=1).double().chunk(2)
    with torch.enable_grad():
        ratios = chosen - ref_chosen, rejected - ref_rejected
        loss = preference_losses(ratios[0], ratios[1], chosen_tokens, rejected_tokens, settings).mean()
    (slopes,) = torch.autograd.grad(loss, sums)
    return _expected(loss, (slopes * sums).abs().sum(), logps.dtype)


def expected_likelihood_loss(
    logps: Float[Tensor, "examples tokens"], is_learnt: Bool[Tensor, "examples tokens"], tokens: float | None = None
) -> ExpectedLoss:
    """The negative log-likelihood of the learnt tokens by the token, or by `tokens`, where these are of a larger batch."""
    total = sums_of_logps(logps, is_learnt).sum() / max(1.0, is_learnt.sum().item() if tokens is None else tokens)
    return _expected(-total, total.abs(), logps.dtype)


@contextmanager
def noted_logps(model: torch.nn.Module) -> Iterator[list[Tensor]]:
    """While open, the list gets what each forward pass of TRL's head says of every next token, in order."""
    found: list[Tensor] = []

    def note(_module: torch.nn.Module, _inputs: Any, outputs: Any) -> None:
        logps = getattr(outputs, "log_probs", None)
        if logps is not None:
            found.append(logps.detach())

    handle = model.register_forward_hook(note)
    try:
        yield found
    finally:
        handle.remove()


def next_tokens(mask: Tensor, passes: Sequence[Tensor]) -> Bool[Tensor, "rows tokens"]:
    """A mask of tokens as one of the places at which these are predicted."""
    return mask.bool()[:, 1:].to(passes[0].device)


def sums_of_logps(logps: Tensor, counted: Tensor) -> Float[Tensor, " rows"]:
    """The log-probability of each row, in double precision, by those of its tokens that are counted."""
    return logps.double().where(counted, 0).sum(dim=1)


def _expected(loss: Tensor, size_of_terms: Tensor, dtype: torch.dtype) -> ExpectedLoss:
    rounding = ROUNDINGS * torch.finfo(dtype).eps
    return ExpectedLoss(loss.item(), rounding * (size_of_terms.item() + abs(loss.item()) + 1e-3))
