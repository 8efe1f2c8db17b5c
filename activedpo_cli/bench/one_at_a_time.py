"""What features cost without batches: LESS's order of work (arXiv 2402.04333), written in plain autograd.

One response is one forward and one backward pass; the gradients of all LoRA matrices are laid end to end, and every 16
such vectors are multiplied by a dense matrix of random signs. The matrix is too large to keep, so it is drawn anew, a block
at a time. As elsewhere here, logits are computed for response tokens only and the base's weights get no gradients.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from activedpo_cli.base.shapes import Float
from activedpo_cli.bench.measuring import seconds
from activedpo_cli.gradients.batch import ResponseBatch
from activedpo_cli.gradients.logps import summed_logps
from activedpo_cli.gradients.lora_matrices import active_lora_matrices
from activedpo_cli.gradients.model_state import evaluation_mode, frozen_parameters

AT_A_TIME = 16
ENTRIES_AT_ONCE = 2**24
ENTRIES_TIMED = 2 * 10**10
"""Of the random matrix; the time of more is scaled up from the first ones."""


@dataclass(frozen=True)
class OneAtATime:
    """Seconds for `responses` responses; the projection's are scaled up from `projected_share` of the coordinates."""

    responses: int
    gradient_seconds: float
    projection_seconds: float
    projected_share: float

    def seconds_for(self, responses: int) -> float:
        """Seconds for that many."""
        return (self.gradient_seconds + self.projection_seconds) * responses / self.responses


def time_one_at_a_time(
    model: nn.Module, singles: Sequence[ResponseBatch], proj_dim: int, seed: int, entries_timed: int = ENTRIES_TIMED
) -> OneAtATime:
    """Time the loop on `singles`, batches of one response each of which there are at most 16, after a warm-up."""
    if len(singles) > AT_A_TIME:
        raise ValueError(f"{len(singles)} responses are more than are projected at a time, {AT_A_TIME}")
    device = singles[0].input_ids.device
    gradients = one_at_a_time_gradients(model, singles[:1])
    size = gradients.shape[1]
    gradients = gradients.new_zeros(len(singles), size)
    gradient_seconds = seconds(lambda: one_at_a_time_gradients(model, singles, into=gradients), device)
    timed = min(size, max(1, entries_timed // proj_dim))
    part = gradients[:, :timed]
    project_densely(part[:, :1], proj_dim, seed)
    projection_seconds = seconds(lambda: project_densely(part, proj_dim, seed), device)
    share = timed / size
    return OneAtATime(len(singles), gradient_seconds, projection_seconds / share, share)


def one_at_a_time_gradients(
    model: nn.Module, singles: Sequence[ResponseBatch], into: Float[Tensor, "responses size"] | None = None
) -> Float[Tensor, "responses size"]:
    """∇ log π(y | x) of each response by autograd, A and B of each layer in turn; `into` takes them where it is given.

    On a GPU they are kept in the base's half precision, as LESS keeps them; elsewhere in the adapter's own format.
    """
    with torch.enable_grad(), evaluation_mode(model), frozen_parameters(model):
        weights = [matrix.module.weight for matrix in active_lora_matrices(model)]
        for weight in weights:
            weight.requires_grad_(True)
        if into is None:
            into = torch.zeros(
                len(singles), sum(w.numel() for w in weights), dtype=_kept_dtype(model), device=weights[0].device
            )
        for row, single in zip(into, singles, strict=True):
            gradients = torch.autograd.grad(summed_logps(model, single).sum(), weights)
            row.copy_(torch.cat([gradient.flatten() for gradient in gradients]))
    return into


def project_densely(
    vectors: Float[Tensor, "responses size"], proj_dim: int, seed: int
) -> Float[Tensor, "responses proj_dim"]:
    """Each vector times a dense matrix of independent ±1/√d."""
    projected = torch.zeros(len(vectors), proj_dim, dtype=vectors.dtype, device=vectors.device)
    for start, block in sign_blocks(vectors.shape[1], proj_dim, seed, vectors.dtype, vectors.device):
        projected.addmm_(vectors[:, start : start + len(block)], block)
    return projected / proj_dim**0.5


def sign_blocks(
    size: int, proj_dim: int, seed: int, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[int, Float[Tensor, "entries proj_dim"]]]:
    """Rows of the sign matrix with the number of the first, a block at a time; eight signs from every random byte."""
    generator = torch.Generator(device).manual_seed(seed)
    bits = torch.arange(256, device=device)[:, None] >> torch.arange(8, device=device) & 1
    signs_of_byte = (bits * 2 - 1).to(dtype)
    rows = max(1, ENTRIES_AT_ONCE // proj_dim)
    for start in range(0, size, rows):
        count = min(rows, size - start) * proj_dim
        drawn = torch.randint(256, (-(-count // 8),), generator=generator, dtype=torch.uint8, device=device)
        yield start, nn.functional.embedding(drawn.int(), signs_of_byte).flatten()[:count].view(-1, proj_dim)


def _kept_dtype(model: nn.Module) -> torch.dtype:
    embeddings: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    weight = next(embeddings.parameters())
    return weight.dtype if weight.is_cuda else torch.promote_types(weight.dtype, torch.float32)
