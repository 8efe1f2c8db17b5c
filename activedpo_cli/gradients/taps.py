"""Taps on LoRA matrices: hand over each matrix's per-example gradient as two factors while the backward pass runs.

For y = M x summed over tokens, an example's gradient with respect to M is Σ_t (∂ℓ/∂y_t) x_tᵀ. The input is seen in the
forward pass, the output's gradient in the backward pass; PEFT's scaling lies outside both and needs no care. What is
kept between the two is saved through autograd, so that gradient checkpointing makes it again instead of holding it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.shapes import Float
from activedpo_cli.gradients.batch import ResponseBatch
from activedpo_cli.gradients.lora_matrices import LoraMatrix, MatrixShape


class GradientSink(Protocol):
    """Takes gradients as factors: an example's is Σ_t short_t long_tᵀ, `rank` × `width`."""

    def keep(
        self, shape: MatrixShape, long: Float[Tensor, "examples tokens width"]
    ) -> Float[Tensor, "examples tokens kept"]:
        """What of the long factor has to be held until the short one is known."""

    def add(
        self,
        shape: MatrixShape,
        short: Float[Tensor, "examples tokens rank"],
        kept: Float[Tensor, "examples tokens kept"],
    ) -> None:
        """Receive one matrix's gradients; called once for each matrix."""


@contextmanager
def tapped(
    matrices: Sequence[LoraMatrix], sink: GradientSink, batch: ResponseBatch, dtype: torch.dtype | None = None
) -> Iterator[set[str]]:
    """While open, a forward and a backward pass of `batch` hand `sink` the gradients of `matrices`, factors in `dtype`.

    The set yielded names the matrices whose gradients have arrived.
    """
    arrived: set[str] = set()
    with ExitStack() as stack:
        for matrix in matrices:
            handle = matrix.module.register_forward_hook(_forward_hook(matrix, sink, batch, arrived, dtype))
            stack.callback(handle.remove)
        yield arrived


def _forward_hook(
    matrix: LoraMatrix, sink: GradientSink, batch: ResponseBatch, arrived: set[str], dtype: torch.dtype | None
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    shape = matrix.shape

    def receive(kept: Tensor, output_gradient: Tensor) -> None:
        if shape.name in arrived:
            raise InvalidDataError(f"{shape.name} is used twice in one pass, so its gradient's norm is unknown")
        arrived.add(shape.name)
        output_gradient = _by_example(output_gradient, batch, shape).to(dtype or output_gradient.dtype)
        if matrix.is_a:
            sink.add(shape, short=output_gradient, kept=kept)
        else:
            sink.add(shape, short=kept, kept=sink.keep(shape, output_gradient))

    def on_forward(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not output.requires_grad:
            return output
        tokens_in = _by_example(inputs[0].detach(), batch, shape)
        tokens_in = tokens_in.to(dtype or tokens_in.dtype)
        kept = sink.keep(shape, tokens_in) if matrix.is_a else tokens_in
        tapped_output: Tensor = _Tap.apply(output, kept, receive)
        return tapped_output

    return on_forward


def lies_by_example(values: Tensor, batch: ResponseBatch) -> bool:
    """Whether the shape allows that the values of each example lie together, in the order of the batch.

    Some layers get the tokens of all examples as rows of one matrix, or several vectors for each token. All that a pass
    of one example sees belongs to it.
    """
    examples, tokens = batch.input_ids.shape
    if examples == 1:
        return values.ndim >= 2
    if values.ndim == 2:
        return len(values) == examples * tokens
    return values.ndim > 2 and len(values) == examples


def _by_example(values: Tensor, batch: ResponseBatch, shape: MatrixShape) -> Float[Tensor, "examples places width"]:
    """The same with a row for each example; raises InvalidDataError where the shape says that they lie otherwise."""
    if not lies_by_example(values, batch):
        raise InvalidDataError(
            f"{shape.name} mixes the examples of a batch, so they can't be told apart",
            hint="leave this layer out of adapter.target_modules",
        )
    return values.reshape(len(batch.input_ids), -1, values.shape[-1])


class _Tap(torch.autograd.Function):
    """Passes a tensor on unchanged, and in the backward pass shows its gradient together with what was kept."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, kept: Tensor, receive: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.receive = receive
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ctx.receive(ctx.saved_tensors[0], gradients[0])
        return gradients[0], None, None
