"""Projected LoRA gradients of each response, from one batched forward and one activation-only backward pass.

Where a batch does not show a matrix's gradients apart, as of weights that several responses' tokens share in an order of
their own, each response has a pass of its own, and that matrix's gradient is autograd's: slower, and as exact.
"""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Literal

import torch
from torch import Tensor, nn

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.shapes import Float
from activedpo_cli.gradients.batch import GradientBatch, ResponseBatch
from activedpo_cli.gradients.logps import summed_logps
from activedpo_cli.gradients.lora_matrices import LoraMatrix, MatrixShape, active_lora_matrices
from activedpo_cli.gradients.model_state import embeddings_as_leaf, evaluation_mode, frozen_parameters
from activedpo_cli.gradients.projections.base import Projection, add_squared_norms, outer_products
from activedpo_cli.gradients.sums_by_device import SumsByDevice
from activedpo_cli.gradients.taps import GradientSink, tapped

ExactNorms = Literal["auto", "always"]


def response_gradients(
    model: nn.Module,
    batch: ResponseBatch,
    projection: Projection,
    *,
    exact_norms: ExactNorms = "auto",
    alone: Collection[str] = (),
) -> GradientBatch:
    """∇ log π(y | x) of each response with respect to the active LoRA matrices, projected.

    The gradient of section 3.3, arXiv 2505.19241, taken of the summed log-probability; β and π_ref only scale or drop
    out. No example's gradient exists as a whole. With B = 0, a fresh adapter, ∇_A is exactly zero and is left out.
    `exact_norms` auto gives them where the projection forms every matrix's gradient anyway; always forms each for them.
    `alone` names matrices whose gradients a batch does not show apart (`separation`); with any, or with
    adapted bare weights, no response shares a pass with another.
    Dropout is off; the model's modes and `requires_grad` flags are the same afterwards, and no `.grad` is touched.

    Raises InvalidDataError where the model has no adapter whose gradient can be taken.
    """
    matrices = [matrix for matrix in active_lora_matrices(model) if matrix.has_gradient]
    if len(batch.input_ids) > 1 and any(is_taken_alone(matrix, alone) for matrix in matrices):
        parts = (
            response_gradients(model, one, projection, exact_norms=exact_norms, alone=alone) for one in batch.each()
        )
        return joined(list(parts))
    sink = FeatureSink(projection, batch, working_dtype(matrices), exact_norms == "always")
    logps = backward_pass(model, batch, matrices, sink, alone)
    is_known = exact_norms == "always" or all(projection.forms_gradient(matrix.shape) for matrix in matrices)
    return GradientBatch(sink.features, sink.squared_norms.sqrt() if is_known else None, logps)


def plain_pass(model: nn.Module, batch: ResponseBatch) -> Float[Tensor, " examples"]:
    """The same forward and backward pass for the log-probabilities alone: the cost that features can't go below."""
    return backward_pass(model, batch)


def is_taken_alone(matrix: LoraMatrix, alone: Collection[str]) -> bool:
    """Whether a matrix's gradient is autograd's, of a pass of one response."""
    return not matrix.is_applied or matrix.shape.name in alone


def backward_pass(
    model: nn.Module,
    batch: ResponseBatch,
    matrices: Sequence[LoraMatrix] = (),
    sink: GradientSink | None = None,
    alone: Collection[str] = (),
) -> Float[Tensor, " examples"]:
    """Summed log-probabilities, and their backward pass down to the embeddings, shown to `sink` where there is one.

    Raises ValueError for several examples where some matrix is taken alone.
    """
    by_autograd = [matrix for matrix in matrices if is_taken_alone(matrix, alone)]
    if by_autograd and len(batch.input_ids) > 1:
        raise ValueError("a matrix that is taken alone needs a pass for each example")
    by_taps = [matrix for matrix in matrices if not is_taken_alone(matrix, alone)]
    weights = [matrix.module.weight for matrix in by_autograd]
    with torch.enable_grad(), ExitStack() as stack:
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(frozen_parameters(model))
        for weight in weights:
            weight.requires_grad_(True)
        leaves = stack.enter_context(embeddings_as_leaf(model))
        arrived = stack.enter_context(tapped(by_taps, sink, batch, factor_dtype(model))) if sink is not None else None
        logps = summed_logps(model, batch)
        found: tuple[Tensor | None, ...] = ()
        if logps.requires_grad:
            found = torch.autograd.grad(logps.sum(), [*leaves, *weights], allow_unused=True)
    whole = [*zip(by_autograd, found[len(leaves) :], strict=True)] if found else []
    if sink is not None:
        _add_whole(whole, sink, working_dtype(matrices))
    if arrived is not None and not arrived and all(gradient is None for _, gradient in whole):
        raise InvalidDataError("no gradient reached the LoRA adapter")
    return logps.detach()


def _add_whole(gradients: Sequence[tuple[LoraMatrix, Tensor | None]], sink: GradientSink, dtype: torch.dtype) -> None:
    """Hand on gradients of one example that are formed already: as factors, the short one is the identity."""
    for matrix, gradient in gradients:
        if gradient is not None:
            rows = (gradient if matrix.is_a else gradient.T).to(dtype)[None]
            short = torch.eye(matrix.shape.rank, dtype=dtype, device=rows.device)[None]
            sink.add(matrix.shape, short=short, kept=sink.keep(matrix.shape, rows))


def joined(parts: Sequence[GradientBatch]) -> GradientBatch:
    """Batches as one, in their order."""
    norms = [part.exact_norms for part in parts if part.exact_norms is not None]
    return GradientBatch(
        features=torch.cat([part.features for part in parts]),
        exact_norms=torch.cat(norms) if len(norms) == len(parts) else None,
        logps=torch.cat([part.logps for part in parts]),
    )


def working_dtype(matrices: Sequence[LoraMatrix]) -> torch.dtype:
    """What features are summed in: float64 for a float64 adapter, else float32."""
    return torch.promote_types(matrices[0].module.weight.dtype, torch.float32)


def factor_dtype(model: nn.Module) -> torch.dtype | None:
    """What factors are multiplied in: the base's half precision, in which they were computed; None leaves them alone.

    PEFT widens a half-precision input to float32 for its adapter, so narrowing it again loses nothing; what the adapter's
    own matrices have made of it is rounded.
    """
    embeddings: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    dtype = next(embeddings.parameters()).dtype
    return dtype if dtype in (torch.bfloat16, torch.float16) else None


class FeatureSink:
    """Sums of projected gradients and of squared norms over the matrices."""

    def __init__(
        self,
        projection: Projection,
        batch: ResponseBatch,
        dtype: torch.dtype,
        forms_gradients: bool,
    ) -> None:
        examples, device = len(batch.input_ids), batch.input_ids.device
        self.projection = projection
        self._features = SumsByDevice((examples, projection.proj_dim), dtype, device)
        self._squared_norms = SumsByDevice((examples,), dtype, device)
        self._forms_gradients = forms_gradients

    @property
    def features(self) -> Float[Tensor, "examples proj_dim"]:
        """The sums so far, on the device of the batch."""
        return self._features.total()

    @property
    def squared_norms(self) -> Float[Tensor, " examples"]:
        """Of the gradients that were formed, likewise."""
        return self._squared_norms.total()

    def keep(self, shape: MatrixShape, long: Float[Tensor, "examples tokens width"]) -> Tensor:
        """The long factor, compressed at once unless the gradient itself is wanted."""
        return long if self._forms_gradients else self.projection.compress(shape, long)

    def add(self, shape: MatrixShape, short: Float[Tensor, "examples tokens rank"], kept: Tensor) -> None:
        """Add the image of one matrix's gradients."""
        seen_by_projection, norms = self.projection.forms_gradient(shape), self._squared_norms.beside(kept)
        if self._forms_gradients:
            if not seen_by_projection:
                add_squared_norms(outer_products(short, kept), norms)
            kept = self.projection.compress(shape, kept)
        self.projection.add(shape, short, kept, self._features.beside(kept), norms if seen_by_projection else None)
