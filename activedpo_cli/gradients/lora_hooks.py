"""Per-example gradients of LoRA matrices, one matrix at a time, while the backward pass runs.

For y = M x summed over tokens, an example's gradient with respect to M is Σ_t (∂ℓ/∂y_t) x_tᵀ. The input is caught in
the forward pass, the output's gradient in the backward pass; PEFT's scaling lies outside both and needs no care.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from activedpo_cli.errors import InvalidDataError
from activedpo_cli.shapes import Float

GradientSink = Callable[[str, Float[Tensor, "examples rows columns"]], None]


def active_lora_matrices(model: nn.Module) -> dict[str, nn.Linear]:
    """The A and B matrices of the active adapter, by name.

    A name such as `model.layers.0.self_attn.q_proj/lora_A` leaves out the adapter's name and PEFT's prefix, so that it
    is the same however the model is wrapped. Raises InvalidDataError where there are none, or where one can't be
    measured: merged, switched off, several at once, or another kind than LoRA on linear layers.
    """
    matrices: dict[str, nn.Linear] = {}
    for module_name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            name = module_name.removeprefix("base_model.model.")
            for part, matrix in _layer_matrices(name, layer).items():
                matrices[f"{name}/{part}"] = matrix
    if not matrices:
        raise InvalidDataError(
            "the model has no active LoRA adapter, so there is no gradient to take",
            hint="check `adapter.target_modules`",
        )
    return matrices


def _layer_matrices(name: str, layer: LoraLayer) -> dict[str, nn.Linear]:
    if layer.merged or layer.disable_adapters:
        raise InvalidDataError(f"the adapter of {name} is merged or switched off")
    active = [adapter for adapter in layer.active_adapters if adapter in layer.lora_A]
    if any(adapter in layer.lora_embedding_A for adapter in layer.active_adapters):
        raise InvalidDataError(f"{name} is an adapted embedding, whose gradient can't be taken")
    if not active:
        return {}
    if len(active) > 1:
        raise InvalidDataError(f"{name} has {len(active)} active adapters, and only one can be measured")
    parts = {"lora_A": layer.lora_A[active[0]], "lora_B": layer.lora_B[active[0]]}
    matrices = {part: matrix for part, matrix in parts.items() if isinstance(matrix, nn.Linear)}
    if active[0] in layer.lora_variant or len(matrices) < len(parts):
        raise InvalidDataError(f"the adapter of {name} is not plain LoRA on a linear layer")
    return matrices


@contextmanager
def per_example_gradients(matrices: dict[str, nn.Linear], sink: GradientSink, dtype: torch.dtype) -> Iterator[set[str]]:
    """While open, every backward pass hands `sink` each matrix's per-example gradient, in `dtype`.

    The set yielded names the matrices that gradients arrived for. Expects one forward and one backward pass.
    """
    arrived: set[str] = set()
    with ExitStack() as stack:
        for name, matrix in matrices.items():
            handle = matrix.register_forward_hook(_forward_hook(name, sink, dtype, arrived))
            stack.callback(handle.remove)
        yield arrived


def _forward_hook(
    name: str, sink: GradientSink, dtype: torch.dtype, arrived: set[str]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def on_forward(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        tokens_in = inputs[0].detach()
        if tokens_in.ndim != 3:
            raise InvalidDataError(f"{name} mixes the examples of a batch, so they can't be told apart")

        def on_backward(tokens_out_gradient: Tensor) -> None:
            if name in arrived:
                raise InvalidDataError(f"{name} is used twice in one pass, so its gradient's norm is unknown")
            arrived.add(name)
            sink(name, torch.einsum("nto,nti->noi", tokens_out_gradient.to(dtype), tokens_in.to(dtype)))

        output.register_hook(on_backward)

    return on_forward
