"""Projection `dense`: multiplies each gradient with a dense matrix of random signs; the textbook's, a slow check.

The k × d matrix is never held: its columns are drawn again, a block at a time, for every batch.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float
from activedpo_cli.gradients.lora_matrices import MatrixShape
from activedpo_cli.gradients.projections.base import OfFormedGradients, drawing, random_signs

ENTRIES_AT_ONCE = 2**24


class Dense(OfFormedGradients):
    """P of independent ±1/√d; Achlioptas 2003. Var ‖Pg‖²/‖g‖⁴ ≤ 2/d."""

    def add_flat(
        self, shape: MatrixShape, gradients: Float[Tensor, "examples size"], into: Float[Tensor, "examples proj_dim"]
    ) -> None:
        """Add the image of each flat gradient to `into`, in its dtype."""
        for start, block in self._blocks(shape):
            into += gradients[:, start : start + len(block)].to(into) @ block.to(into)

    def matrix(self, shape: MatrixShape) -> Float[Tensor, "proj_dim size"]:
        """P for one matrix, in float64."""
        return torch.cat([block for _, block in self._blocks(shape)]).double().T

    def _blocks(self, shape: MatrixShape) -> Iterator[tuple[int, Float[Tensor, "entries proj_dim"]]]:
        generator = drawing(self.seed, "dense", shape.name)
        entries = max(1, ENTRIES_AT_ONCE // self.proj_dim)
        for start in range(0, shape.size, entries):
            count = min(entries, shape.size - start)
            signs = random_signs(count * self.proj_dim, generator).view(count, self.proj_dim)
            yield start, signs / self.proj_dim**0.5
