"""How well a projection keeps the angles between a model's own gradients."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from math import sqrt

import torch
from torch import Tensor, nn

from activedpo_cli.base.shapes import Float
from activedpo_cli.gradients.batch import ResponseBatch
from activedpo_cli.gradients.lora_matrices import LoraMatrix, MatrixShape, active_lora_matrices
from activedpo_cli.gradients.per_response import backward_pass, is_taken_alone, working_dtype
from activedpo_cli.gradients.projections.base import Projection, outer_products
from activedpo_cli.gradients.projections.factored import Factored
from activedpo_cli.gradients.sums_by_device import SumsByDevice

TOLERATED = 1.15
"""A wider sketch is advised where the error is clearly above so many times a dense projection's."""
ENTRIES_KEPT = 2**28
"""How many entries of gradients are kept at once, where responses have passes of their own."""


@dataclass(frozen=True)
class ProjectionQuality:
    """Root mean square error of the cosines between projected gradients, over pairs of a sample.

    `dense` is what a dense random projection would have for the same pairs, about (1 − cos²)/√d for each; `floor` is
    1/√d, the same for gradients at right angles.
    """

    cosine_rmse: float
    floor: float
    dense: float
    pairs: int

    @classmethod
    def of(cls, found: Float[Tensor, "pairs 2"], proj_dim: int) -> "ProjectionQuality | None":
        """The summary of `cosine_errors`; None where there is no pair."""
        if not len(found):
            return None
        errors, cosines = found.unbind(dim=1)
        floor = 1 / sqrt(proj_dim)
        dense = floor * float((1 - cosines.square()).square().mean().sqrt())
        return cls(float(errors.square().mean().sqrt()), floor, dense, len(found))

    @property
    def is_good(self) -> bool:
        """Whether the error may be as small as a dense projection's: at most two standard errors above 1.15 times it."""
        return self.cosine_rmse <= (TOLERATED + 2 / sqrt(2 * self.pairs)) * self.dense


def advice(model: nn.Module, projection: Projection) -> str:
    """The flags that bring a projection's error down; a wider sketch only where some matrix is compressed."""
    shapes = [matrix.shape for matrix in active_lora_matrices(model)]
    if isinstance(projection, Factored) and not all(projection.forms_gradient(shape) for shape in shapes):
        return f"--projection-width {2 * projection.width}, --projection count-sketch, or a larger --proj-dim"
    return "a larger --proj-dim"


def cosine_errors(
    model: nn.Module, batch: ResponseBatch, projection: Projection, alone: Collection[str] = ()
) -> Float[Tensor, "pairs 2"]:
    """Cosine of features minus cosine of exact gradients, and the latter, for every pair in the batch.

    Forms one matrix's exact gradients at a time, and never a whole one, unless some matrix is taken `alone`: then whole
    gradients of as many responses are kept as 1 GiB has room for. Pairs with a gradient that is zero or not finite are
    left out.
    """
    matrices = [matrix for matrix in active_lora_matrices(model) if matrix.has_gradient]
    if any(is_taken_alone(matrix, alone) for matrix in matrices):
        gram, features = _of_passes_alone(model, batch, projection, matrices, alone)
    else:
        sink = _GramSink(projection, batch, working_dtype(matrices))
        backward_pass(model, batch, matrices, sink)
        gram, features = sink.gram, sink.features.cpu().double()
    exact, projected = _cosines(gram), _cosines(features @ features.T)
    rows, columns = torch.triu_indices(len(exact), len(exact), offset=1)
    found = torch.stack([(projected - exact)[rows, columns], exact[rows, columns]], dim=1)
    return found[found.isfinite().all(dim=1)]


def _of_passes_alone(
    model: nn.Module,
    batch: ResponseBatch,
    projection: Projection,
    matrices: Sequence[LoraMatrix],
    alone: Collection[str],
) -> tuple[Float[Tensor, "examples examples"], Float[Tensor, "examples proj_dim"]]:
    """Inner products of exact gradients and the features, of the first examples, on the CPU."""
    room = ENTRIES_KEPT // sum(matrix.shape.size for matrix in matrices)
    sinks = []
    for one in islice(batch.each(), room):
        sink = _WholeSink(projection, one, working_dtype(matrices))
        backward_pass(model, one, matrices, sink, alone)
        sinks.append(sink)
    gram = torch.zeros(len(sinks), len(sinks), dtype=torch.float64)
    for matrix in matrices:
        absent = torch.zeros(matrix.shape.size)
        rows = torch.stack([sink.whole.get(matrix.shape, absent) for sink in sinks]) if sinks else absent[:0, None]
        gram += rows @ rows.T
    features = [sink.features.cpu().double() for sink in sinks]
    return gram, torch.cat(features) if features else torch.zeros(0, projection.proj_dim, dtype=torch.float64)


class _GramSink:
    """Inner products of exact gradients, and the features of the same."""

    def __init__(self, projection: Projection, batch: ResponseBatch, dtype: torch.dtype) -> None:
        examples, device = len(batch.input_ids), batch.input_ids.device
        self.projection = projection
        self.gram = torch.zeros(examples, examples, dtype=torch.float64)  # on the CPU: not every device has float64
        self._features = SumsByDevice((examples, projection.proj_dim), dtype, device)

    @property
    def features(self) -> Tensor:
        """The sums so far."""
        return self._features.total()

    def keep(self, shape: MatrixShape, long: Tensor) -> Tensor:
        return long

    def add(self, shape: MatrixShape, short: Tensor, kept: Tensor) -> None:
        gradients = outer_products(short, kept).flatten(1)
        self.gram += (gradients @ gradients.T).cpu()
        self.projection.add(shape, short, self.projection.compress(shape, kept), self._features.beside(kept))


class _WholeSink(_GramSink):
    """The whole gradients of one example, matrix by matrix on the CPU, and its features."""

    def __init__(self, projection: Projection, batch: ResponseBatch, dtype: torch.dtype) -> None:
        super().__init__(projection, batch, dtype)
        self.whole: dict[MatrixShape, Tensor] = {}

    def add(self, shape: MatrixShape, short: Tensor, kept: Tensor) -> None:
        self.whole[shape] = outer_products(short, kept)[0].flatten().float().cpu()
        self.projection.add(shape, short, self.projection.compress(shape, kept), self._features.beside(kept))


def _cosines(gram: Float[Tensor, "examples examples"]) -> Float[Tensor, "examples examples"]:
    """NaN for a row of zeros."""
    norms = gram.diagonal().sqrt()
    return gram / norms[:, None] / norms[None, :]
