"""What a random projection of LoRA gradients is, and how its parts are drawn."""

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.shapes import Float
from activedpo_cli.gradients.lora_matrices import MatrixShape


class Projection(Protocol):
    """A linear map, fixed by its seed, that takes the gradient of one matrix after another and sums the images.

    Inner products and squared norms are kept in expectation over seeds, E[PᵀP] = I. Gradients come as factors, Σ_t
    short_t long_tᵀ for each example, so that a projection need not form them. Draws depend on the seed and the matrix's
    name and shape alone and are made on the CPU, so the map is the same on every device.
    """

    proj_dim: int

    def compress(
        self, shape: MatrixShape, long: Float[Tensor, "examples tokens width"]
    ) -> Float[Tensor, "examples tokens kept"]:
        """The part of the map that works on the long factor alone; the factor itself where there is none."""

    def add(
        self,
        shape: MatrixShape,
        short: Float[Tensor, "examples tokens rank"],
        compressed: Float[Tensor, "examples tokens kept"],
        into: Float[Tensor, "examples proj_dim"],
        squared_norms: Float[Tensor, " examples"] | None = None,
    ) -> None:
        """Add the image of each example's gradient to `into`, and its squared norm to `squared_norms`.

        Norms are asked for only where `forms_gradient` says that the gradient is formed on the way.
        """

    def forms_gradient(self, shape: MatrixShape) -> bool:
        """Whether the entries of the gradient are computed, so that its exact norm costs next to nothing."""

    def matrix(self, shape: MatrixShape) -> Float[Tensor, "proj_dim size"]:
        """The map for one matrix, written out in float64; for tests and diagnostics."""


class OfFormedGradients(ABC):
    """A projection that forms each matrix's gradient as a whole and maps that."""

    def __init__(self, proj_dim: int, seed: int) -> None:
        self.proj_dim = proj_dim
        self.seed = seed

    def forms_gradient(self, shape: MatrixShape) -> bool:
        """Always true."""
        return True

    def compress(
        self, shape: MatrixShape, long: Float[Tensor, "examples tokens width"]
    ) -> Float[Tensor, "examples tokens width"]:
        """The factor itself."""
        return long

    def add(
        self,
        shape: MatrixShape,
        short: Float[Tensor, "examples tokens rank"],
        compressed: Float[Tensor, "examples tokens width"],
        into: Float[Tensor, "examples proj_dim"],
        squared_norms: Float[Tensor, " examples"] | None = None,
    ) -> None:
        """Add the image of each example's gradient to `into`, in its dtype; exactly linear."""
        gradients = outer_products(short, compressed)
        add_squared_norms(gradients, squared_norms)
        self.add_flat(shape, gradients.flatten(1), into)

    @abstractmethod
    def add_flat(
        self, shape: MatrixShape, gradients: Float[Tensor, "examples size"], into: Float[Tensor, "examples proj_dim"]
    ) -> None:
        """The same for gradients that have been formed already."""


def outer_products(
    short: Float[Tensor, "examples tokens rows"], long: Float[Tensor, "examples tokens columns"]
) -> Float[Tensor, "examples rows columns"]:
    """Σ_t short_t long_tᵀ for each example, float64 for float64 factors and float32 otherwise."""
    factors = short.transpose(1, 2), long
    if short.dtype in (torch.bfloat16, torch.float16):
        if short.is_cuda:
            return torch.bmm(*factors, out_dtype=torch.float32)
        return torch.bmm(*factors).float()
    return torch.bmm(*factors)


def add_squared_norms(gradients: Float[Tensor, "examples ..."], to: Float[Tensor, " examples"] | None) -> None:
    """Add each example's squared norm to `to` where that is wanted."""
    if to is not None:
        to += torch.linalg.vector_norm(gradients.flatten(1), dim=1).square().to(to)


def drawing(seed: int, kind: str, name: str) -> torch.Generator:
    """The generator from which one matrix's part of a projection is drawn."""
    return torch.Generator().manual_seed(derive_seed(seed, kind, name))


def random_signs(count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
    """Independent ±1 in int8, each with probability ½."""
    return torch.randint(0, 2, (count,), generator=generator, dtype=torch.int8) * 2 - 1
