"""The LoRA matrices of a model's active adapter, and the shape in which their gradients are seen."""

from dataclasses import dataclass

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import nn

from activedpo_cli.base.errors import InvalidDataError


@dataclass(frozen=True)
class MatrixShape:
    """The gradient of A (rank × inputs) or B (outputs × rank, taken transposed) as `rank` rows of `width`.

    `name` leaves out the adapter's name and PEFT's prefix, as in `model.layers.0.self_attn.q_proj/lora_A`, so that it
    is the same however the model is wrapped.
    """

    name: str
    rank: int
    width: int

    @property
    def size(self) -> int:
        """Entries of the gradient."""
        return self.rank * self.width


@dataclass(frozen=True)
class LoraMatrix:
    """One A or B: its shape and the module that holds it; `has_gradient` is False for the A of a B = 0.

    `is_applied` says that the module multiplies what comes in by it; where a bare weight is adapted, such as those of
    a mixture's experts, the product of B and A is added to that weight, and the module is never called.
    """

    shape: MatrixShape
    module: nn.Linear
    is_a: bool
    has_gradient: bool
    is_applied: bool = True


def active_lora_matrices(model: nn.Module) -> list[LoraMatrix]:
    """The A and B of everything that has an active adapter: linear layers, and bare weights such as those of experts.

    Raises InvalidDataError where there are none, or where one can't be measured: merged, switched off, several at once,
    or another kind than plain LoRA.
    """
    found = [
        (_name(path, layer), not isinstance(layer, ParamWrapper), pair)
        for path, layer in model.named_modules()
        if isinstance(layer, LoraLayer) and (pair := _active_pair(path, layer))
    ]
    layers = {name: (is_applied, *pair) for name, is_applied, pair in found}
    if not layers:
        raise InvalidDataError(
            "the model has no active LoRA adapter, so there is no gradient to take",
            hint="check `adapter.target_modules`",
        )
    # All layers are asked at once: on a GPU each question would wait for the device.
    used = [b.weight.any() for _, _, b in layers.values()]
    is_used = torch.stack([one.to(used[0].device) for one in used]).tolist()
    matrices: list[LoraMatrix] = []
    for (name, (is_applied, a, b)), used in zip(layers.items(), is_used, strict=True):
        shape_a = MatrixShape(f"{name}/lora_A", a.out_features, a.in_features)
        shape_b = MatrixShape(f"{name}/lora_B", b.in_features, b.out_features)
        matrices += [LoraMatrix(shape_a, a, True, used, is_applied), LoraMatrix(shape_b, b, False, True, is_applied)]
    return matrices


def _name(path: str, layer: LoraLayer) -> str:
    """The layer without PEFT's wrappers, and the weight where one is adapted: `model.layers.0.mlp.experts.down_proj`."""
    name = path.removeprefix("base_model.model.")
    if isinstance(layer, ParamWrapper):  # they are nested where several weights of a module are adapted
        return f"{name.replace('.base_layer', '')}.{layer.parameter_name}"
    return name


def unseen_weights(model: nn.Module) -> list[str]:
    """The weights that training would change and that are no matrix of `active_lora_matrices`, by their names.

    Adapter weights count whether or not they require a gradient at the moment: a policy may have been attached frozen.
    """
    seen = {id(matrix.module.weight) for matrix in active_lora_matrices(model)}
    return [
        name.removeprefix("base_model.model.")
        for name, parameter in model.named_parameters()
        if (parameter.requires_grad or "lora_" in name or "modules_to_save" in name) and id(parameter) not in seen
    ]


def _active_pair(name: str, layer: LoraLayer) -> tuple[nn.Linear, nn.Linear] | None:
    if layer.merged or layer.disable_adapters:
        raise InvalidDataError(f"the adapter of {name} is merged or switched off")
    if any(adapter in layer.lora_embedding_A for adapter in layer.active_adapters):
        raise InvalidDataError(f"{name} is an adapted embedding, whose gradient can't be taken")
    active = [adapter for adapter in layer.active_adapters if adapter in layer.lora_A]
    if not active:
        return None
    if len(active) > 1:
        raise InvalidDataError(f"{name} has {len(active)} active adapters, and only one can be measured")
    a, b = layer.lora_A[active[0]], layer.lora_B[active[0]]
    if active[0] in layer.lora_variant or not (isinstance(a, nn.Linear) and isinstance(b, nn.Linear)):
        raise InvalidDataError(f"the adapter of {name} is not plain LoRA on a linear layer")
    return a, b
