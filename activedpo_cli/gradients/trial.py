"""A policy on trial: made-up responses, and adapter weights that are moved for a moment and put back exactly."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from activedpo_cli.gradients.batch import ResponseBatch, pad_responses
from activedpo_cli.gradients.lora_matrices import LoraMatrix, active_lora_matrices
from activedpo_cli.models.vocabulary import ordinary_ids

LENGTHS = ((3, 5), (6, 4), (4, 6), (2, 7), (5, 3))
"""Tokens of prompt and response of the made-up examples; two lengths, so that there is padding."""
DISTURBANCE = 0.005
"""Standard deviation of what is added to B, times the adapter's scale: with B = 0 the gradient of A would be zero."""


def made_up_responses(policy: PeftModel) -> ResponseBatch:
    """Responses to prompts, of tokens drawn from the model's vocabulary, those with a meaning of their own left out."""
    draw = torch.Generator().manual_seed(0)
    ordinary = torch.tensor(ordinary_ids(policy.get_base_model()))
    ids = [[ordinary[torch.randint(len(ordinary), (n,), generator=draw)].tolist() for n in pair] for pair in LENGTHS]
    return pad_responses([prompt for prompt, _ in ids], [response for _, response in ids], 0, policy.device)


@contextmanager
def disturbed(policy: PeftModel) -> Iterator[list[LoraMatrix]]:
    """The matrices while every B is a little away from what it is."""
    draw = torch.Generator().manual_seed(0)
    scales = [
        abs(scale) for layer in policy.modules() if isinstance(layer, LoraLayer) for scale in layer.scaling.values()
    ]
    size = DISTURBANCE / max([*scales, 1e-6])
    bs = [matrix for matrix in active_lora_matrices(policy) if not matrix.is_a]
    noise = (size * torch.randn(matrix.module.weight.shape, generator=draw) for matrix in bs)
    with moved(bs, noise):
        yield active_lora_matrices(policy)


@contextmanager
def moved(matrices: Sequence[LoraMatrix], by: Iterator[Tensor]) -> Iterator[None]:
    """Each matrix's weight with something added; the very same weights are back afterwards."""
    kept = [matrix.module.weight.data for matrix in matrices]
    try:
        for matrix, change in zip(matrices, by, strict=True):
            weight = matrix.module.weight
            weight.data = weight.data + change.to(weight)
        yield
    finally:
        for matrix, data in zip(matrices, kept, strict=True):
            matrix.module.weight.data = data
