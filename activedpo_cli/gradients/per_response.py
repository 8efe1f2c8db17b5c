"""Projected LoRA gradients of each response, from one batched forward and one activation-only backward pass."""

import torch
from torch import Tensor, nn

from activedpo_cli.errors import InvalidDataError
from activedpo_cli.gradients.batch import GradientBatch, ResponseBatch
from activedpo_cli.gradients.logps import summed_logps
from activedpo_cli.gradients.lora_hooks import active_lora_matrices, per_example_gradients
from activedpo_cli.gradients.model_state import embeddings_as_leaf, evaluation_mode, frozen_parameters
from activedpo_cli.gradients.projection import Projection
from activedpo_cli.shapes import Float


def response_gradients(model: nn.Module, batch: ResponseBatch, projection: Projection) -> GradientBatch:
    """∇ log π(y | x) of each response with respect to the active LoRA matrices, projected.

    The gradient of section 3.3, arXiv 2505.19241, taken of the summed log-probability; β and π_ref only scale or drop
    out. At most one matrix's per-example gradients exist at a time. With B = 0, a fresh adapter, ∇_A is exactly zero.
    Dropout is off; the model's modes and `requires_grad` flags are the same afterwards, and no `.grad` is touched.

    Raises InvalidDataError where the model has no adapter whose gradient can be taken.
    """
    matrices = active_lora_matrices(model)
    accumulated = _Accumulator(projection, batch.input_ids, _working_dtype(matrices))
    with (
        torch.enable_grad(),
        evaluation_mode(model),
        frozen_parameters(model),
        embeddings_as_leaf(model) as leaves,
        per_example_gradients(matrices, accumulated.add, accumulated.dtype) as arrived,
    ):
        logps = summed_logps(model, batch)
        if logps.requires_grad:
            torch.autograd.grad(logps.sum(), leaves, allow_unused=True)
    if not arrived:
        raise InvalidDataError("no gradient reached the LoRA adapter")
    return GradientBatch(accumulated.features, accumulated.squared_norms.sqrt(), logps.detach())


def _working_dtype(matrices: dict[str, nn.Linear]) -> torch.dtype:
    """float64 for a float64 adapter, else float32."""
    return torch.promote_types(next(iter(matrices.values())).weight.dtype, torch.float32)


class _Accumulator:
    """Sums of projected gradients and of squared norms over the matrices."""

    def __init__(self, projection: Projection, input_ids: Tensor, dtype: torch.dtype) -> None:
        self.projection = projection
        self.dtype = dtype
        self.features = torch.zeros(len(input_ids), projection.proj_dim, dtype=dtype, device=input_ids.device)
        self.squared_norms = torch.zeros(len(input_ids), dtype=dtype, device=input_ids.device)

    def add(self, name: str, gradients: Float[Tensor, "examples rows columns"]) -> None:
        self.projection.add(name, gradients, into=self.features)
        self.squared_norms += torch.linalg.vector_norm(gradients.flatten(1), dim=1).square().to(self.squared_norms)
