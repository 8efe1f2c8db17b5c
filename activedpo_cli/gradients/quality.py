"""How well a projection keeps the angles between a model's own gradients."""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from activedpo_cli.gradients.batch import ResponseBatch
from activedpo_cli.gradients.lora_matrices import MatrixShape, active_lora_matrices
from activedpo_cli.gradients.per_response import backward_pass, working_dtype
from activedpo_cli.gradients.projections.base import Projection, outer_products
from activedpo_cli.shapes import Float

TOLERATED = 1.15
"""Times 1/√d: clearly above it a wider sketch is advised."""


@dataclass(frozen=True)
class ProjectionQuality:
    """Root mean square error of the cosines between projected gradients, over pairs of a sample.

    `floor` is 1/√d, what a dense random projection has for gradients at right angles.
    """

    cosine_rmse: float
    floor: float
    pairs: int

    @classmethod
    def of(cls, errors: Float[Tensor, " pairs"], proj_dim: int) -> "ProjectionQuality | None":
        """The summary of `cosine_errors`; None where there is no pair."""
        if not len(errors):
            return None
        return cls(cosine_rmse=float(errors.square().mean().sqrt()), floor=1 / sqrt(proj_dim), pairs=len(errors))

    @property
    def is_good(self) -> bool:
        """Whether the error may well be as small as a dense projection's: no more than two standard errors above 1.15/√d."""
        return self.cosine_rmse <= (TOLERATED + 2 / sqrt(2 * self.pairs)) * self.floor


def cosine_errors(model: nn.Module, batch: ResponseBatch, projection: Projection) -> Float[Tensor, " pairs"]:
    """Cosine of features minus cosine of exact gradients, for every pair in the batch, in float64.

    Forms one matrix's exact gradients at a time, and never a whole one. Pairs with a gradient that is zero or not finite
    are left out.
    """
    matrices = [matrix for matrix in active_lora_matrices(model) if matrix.has_gradient]
    sink = _GramSink(projection, batch, working_dtype(matrices))
    backward_pass(model, batch, matrices, sink)
    exact, projected = _cosines(sink.gram), _cosines(sink.features @ sink.features.T)
    rows, columns = torch.triu_indices(len(exact), len(exact), offset=1)
    errors = (projected - exact)[rows, columns]
    return errors[errors.isfinite()].cpu()


class _GramSink:
    """Inner products of exact gradients, and the features of the same."""

    def __init__(self, projection: Projection, batch: ResponseBatch, dtype: torch.dtype) -> None:
        examples, device = len(batch.input_ids), batch.input_ids.device
        self.projection = projection
        self.gram = torch.zeros(examples, examples, dtype=torch.float64, device=device)
        self.features = torch.zeros(examples, projection.proj_dim, dtype=dtype, device=device)

    def keep(self, shape: MatrixShape, long: Tensor) -> Tensor:
        return long

    def add(self, shape: MatrixShape, short: Tensor, kept: Tensor) -> None:
        gradients = outer_products(short, kept).flatten(1)
        self.gram += gradients @ gradients.T
        self.projection.add(shape, short, self.projection.compress(shape, kept), self.features)


def _cosines(gram: Float[Tensor, "examples examples"]) -> Float[Tensor, "examples examples"]:
    """NaN for a row of zeros."""
    norms = gram.double().diagonal().sqrt()
    return gram.double() / norms[:, None] / norms[None, :]
