"""Projection `count-sketch`: forms each matrix's gradient and deals its entries into d buckets, with random signs.

A check for `factored`, and the choice where gradients sit in few modules of low rank: as exact as a dense projection,
but it forms whole gradients and holds five bytes for each LoRA parameter.
"""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.gradients.lora_matrices import MatrixShape
from activedpo_cli.gradients.projections.base import OfFormedGradients, drawing, random_signs


class CountSketch(OfFormedGradients):
    """Every entry has a random sign and one of `proj_dim` buckets; a bucket sums what falls into it.

    Buckets are balanced: a random permutation deals the entries out evenly, which never adds variance. They are summed
    in a fixed order, without atomic additions.

    Charikar, Chen, Farach-Colton 2002; E[PᵀP] = I, and ‖Pe‖ = 1 for each unit vector e.
    """

    def __init__(self, proj_dim: int, seed: int) -> None:
        super().__init__(proj_dim, seed)
        self._hashes: dict[MatrixShape, tuple[Int[Tensor, " slots"], Int[Tensor, " slots"]]] = {}

    def add_flat(
        self, shape: MatrixShape, gradients: Float[Tensor, "examples size"], into: Float[Tensor, "examples proj_dim"]
    ) -> None:
        """Add the sketch of each flat gradient to `into`, in its dtype."""
        coordinates, signs = self._hash(shape, into.device)
        dealt = gradients.to(into).index_select(1, coordinates).mul_(signs)
        into += dealt.view(len(dealt), -1, self.proj_dim).sum(dim=1)

    def matrix(self, shape: MatrixShape) -> Float[Tensor, "proj_dim size"]:
        """The sketch of one matrix as a dense float64 matrix with one ±1 in each column."""
        coordinates, signs = self._hash(shape, torch.device("cpu"))
        buckets = torch.arange(len(coordinates)) % self.proj_dim
        used = signs != 0
        dense = torch.zeros(self.proj_dim, shape.size, dtype=torch.float64)
        dense[buckets[used], coordinates[used].long()] = signs[used].double()
        return dense

    def _hash(self, shape: MatrixShape, device: torch.device) -> tuple[Int[Tensor, " slots"], Int[Tensor, " slots"]]:
        """The entry in each slot and its sign, 0 if empty; slot j belongs to bucket j mod proj_dim."""
        if shape not in self._hashes:
            generator = drawing(self.seed, "count-sketch", shape.name)
            slots = -(-shape.size // self.proj_dim) * self.proj_dim
            coordinates = torch.randperm(slots, generator=generator)
            signs = random_signs(slots, generator)
            is_empty = coordinates >= shape.size
            self._hashes[shape] = (
                coordinates.masked_fill(is_empty, 0).to(device, torch.int32),
                signs.masked_fill(is_empty, 0).to(device),
            )
        coordinates, signs = self._hashes[shape]
        return coordinates.to(device), signs.to(device)
