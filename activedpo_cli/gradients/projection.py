"""Seeded random projections of gradients to a fixed dimension."""

import difflib
from typing import Protocol

import torch
from torch import Tensor

from activedpo_cli.errors import UsageError
from activedpo_cli.seeds import derive_seed
from activedpo_cli.shapes import Float, Int


class Projection(Protocol):
    """A linear map, fixed by its seed, that takes the gradient of one matrix after another and sums the images.

    Inner products and squared norms are kept in expectation over seeds.
    """

    proj_dim: int

    def add(
        self, name: str, gradients: Float[Tensor, "examples ..."], into: Float[Tensor, "examples proj_dim"]
    ) -> None:
        """Add the image of each example's gradient with respect to the matrix `name` to `into`, in its dtype."""

    def matrix(self, name: str, size: int) -> Float[Tensor, "proj_dim size"]:
        """The map for the matrix `name` with `size` entries, written out; for tests and diagnostics."""


class CountSketch:
    """Every coordinate has a random sign and one of `proj_dim` buckets; a bucket sums what falls into it.

    Buckets are balanced: a random permutation deals the coordinates out evenly, which never adds variance. The draw
    depends on the seed and the matrix's name only, and is made on the CPU, so it is the same on every device; buckets
    are summed in a fixed order, without atomic additions.

    Charikar, Chen, Farach-Colton 2002; E[PᵀP] = I, and ‖Pe‖ = 1 for each unit vector e.
    """

    def __init__(self, proj_dim: int, seed: int) -> None:
        self.proj_dim = proj_dim
        self.seed = seed
        self._hashes: dict[tuple[str, int], tuple[Int[Tensor, " slots"], Int[Tensor, " slots"]]] = {}

    def add(
        self, name: str, gradients: Float[Tensor, "examples ..."], into: Float[Tensor, "examples proj_dim"]
    ) -> None:
        """Add the sketch of each example's gradient to `into`, in its dtype; exactly linear."""
        flat = gradients.flatten(1).to(into)
        coordinates, signs = self._hash(name, flat.shape[1], into.device)
        dealt = flat.index_select(1, coordinates).mul_(signs)
        into += dealt.view(len(flat), -1, self.proj_dim).sum(dim=1)

    def matrix(self, name: str, size: int) -> Float[Tensor, "proj_dim size"]:
        """The sketch of the matrix `name` as a dense float64 matrix with one ±1 in each column."""
        coordinates, signs = self._hash(name, size, torch.device("cpu"))
        buckets = torch.arange(len(coordinates)) % self.proj_dim
        used = signs != 0
        dense = torch.zeros(self.proj_dim, size, dtype=torch.float64)
        dense[buckets[used], coordinates[used].long()] = signs[used].double()
        return dense

    def _hash(self, name: str, size: int, device: torch.device) -> tuple[Int[Tensor, " slots"], Int[Tensor, " slots"]]:
        """The coordinate in each slot and its sign, 0 if empty; slot j belongs to bucket j mod proj_dim."""
        if (name, size) not in self._hashes:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "count-sketch", name))
            slots = -(-size // self.proj_dim) * self.proj_dim
            coordinates = torch.randperm(slots, generator=generator)
            signs = torch.randint(0, 2, (slots,), generator=generator) * 2 - 1
            is_empty = coordinates >= size
            self._hashes[name, size] = (
                coordinates.masked_fill(is_empty, 0).to(device, torch.int32),
                signs.masked_fill(is_empty, 0).to(device, torch.int8),
            )
        coordinates, signs = self._hashes[name, size]
        return coordinates.to(device), signs.to(device)


PROJECTIONS = {"count-sketch": CountSketch}


def make_projection(kind: str, proj_dim: int, seed: int) -> Projection:
    """The projection called `kind` (`featurize.projection`); raises UsageError with the nearest name when unknown."""
    value = kind.replace("_", "-")
    if value not in PROJECTIONS:
        close = difflib.get_close_matches(value, PROJECTIONS, n=1)
        raise UsageError(
            f"`{kind}` is not a projection" + (f" — did you mean `{close[0]}`?" if close else ""),
            details=[f"known: {', '.join(PROJECTIONS)}"],
            hint=f"--set featurize.projection={close[0] if close else next(iter(PROJECTIONS))}",
        )
    return PROJECTIONS[value](proj_dim, seed)
