"""Finds out which matrices see each response's tokens apart from those of the others, by passes of made-up responses.

What a layer gets may be the tokens of all examples as rows in an order of its own, as behind a router. Shapes alone do
not tell; but log π of one example has no gradient in what belongs to another, exactly none, whatever the number format.
"""

from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor, nn

from activedpo_cli.gradients.batch import ResponseBatch
from activedpo_cli.gradients.logps import summed_logps
from activedpo_cli.gradients.lora_matrices import LoraMatrix
from activedpo_cli.gradients.model_state import embeddings_as_leaf, evaluation_mode, frozen_parameters
from activedpo_cli.gradients.taps import lies_by_example
from activedpo_cli.gradients.trial import disturbed, made_up_responses

BYTES_OF_HALF = 2


@dataclass(frozen=True)
class Separation:
    """The matrices that a batch does not show apart, and layers whose output has no gradient although their input has.

    A layer may be meant to pass none on; one with weights in fewer than 16 bits has only a kernel that can't.
    """

    alone: frozenset[str]
    without_backward: list[str]
    without_backward_of_packed: list[str]


def separation(policy: PeftModel) -> Separation:
    """How gradients of the policy's matrices have to be taken; the policy is as it was afterwards."""
    batch = made_up_responses(policy)
    with disturbed(policy) as matrices:
        seen = _Outputs(batch)
        logps = _with_graph(policy, batch, matrices, seen)
        outputs = list(seen.of.values())
        rows = range(len(batch.input_ids))
        per_example: list[list[Tensor | None]] = [[None] * len(outputs) for _ in rows]
        if logps.requires_grad and outputs:
            per_example = [
                list(torch.autograd.grad(logps[row], outputs, retain_graph=True, allow_unused=True)) for row in rows
            ]
    mixed = set(seen.repeated)
    for place, (name, output) in enumerate(seen.of.items()):
        if not _is_apart(output, [found[place] for found in per_example], batch):
            mixed.add(name)
    if mixed:  # what the made-up tokens were not sent to may be another of the same kind
        mixed |= {matrix.shape.name for matrix in matrices if matrix.is_applied} - seen.of.keys()
    packed = {name for name, layer in _layers_of_base(policy) if _is_packed(layer)}
    return Separation(frozenset(mixed), seen.without_backward, [n for n in seen.without_backward if n in packed])


class _Outputs:
    """The outputs of matrices in one forward pass."""

    def __init__(self, batch: ResponseBatch) -> None:
        self.batch = batch
        self.of: dict[str, Tensor] = {}
        self.repeated: set[str] = set()
        self.without_backward: list[str] = []

    def note(self, name: str, output: Tensor) -> None:
        """Take note of a matrix's output, unless nothing is to be learnt from the pass."""
        if torch.is_grad_enabled() and output.requires_grad:
            if name in self.of:
                self.repeated.add(name)
            self.of[name] = output

    def look(self, name: str, inputs: tuple[object, ...], output: object) -> None:
        """Take note of a layer that passes no gradient on."""
        if torch.is_grad_enabled() and any(map(_has_gradient, inputs)):
            outputs = output if isinstance(output, tuple) else (output,)
            floats = [part for part in outputs if isinstance(part, Tensor) and part.is_floating_point()]
            if floats and not any(map(_has_gradient, floats)) and name not in self.without_backward:
                self.without_backward.append(name)


def _with_graph(policy: PeftModel, batch: ResponseBatch, matrices: list[LoraMatrix], seen: _Outputs) -> Tensor:
    """Log-probabilities of the batch with their graph; what passes through the layers is noted."""
    handles = [
        matrix.module.register_forward_hook(lambda _m, _i, output, name=matrix.shape.name: seen.note(name, output))
        for matrix in matrices
        if matrix.is_applied
    ]
    handles += [
        layer.register_forward_hook(lambda _m, inputs, output, name=name: seen.look(name, inputs, output))
        for name, layer in _layers_of_base(policy)
    ]
    try:
        with torch.enable_grad(), evaluation_mode(policy), frozen_parameters(policy), embeddings_as_leaf(policy):
            return summed_logps(policy, batch)
    finally:
        for handle in handles:
            handle.remove()


def _layers_of_base(policy: PeftModel) -> list[tuple[str, nn.Module]]:
    """The innermost modules with weights, those of the adapter left out."""
    return [
        (name.removeprefix("base_model.model.").replace(".base_layer", ""), module)
        for name, module in policy.named_modules()
        if "lora_" not in name and not any(module.children()) and any(True for _ in module.parameters(recurse=False))
    ]


def _is_packed(layer: nn.Module) -> bool:
    return any(weight.element_size() < BYTES_OF_HALF for weight in layer.parameters(recurse=False))


def _has_gradient(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.requires_grad


def _is_apart(output: Tensor, gradients: list[Tensor | None], batch: ResponseBatch) -> bool:
    """Whether the rows lie by example, and log π of each has no gradient in the rows of the others."""
    if not lies_by_example(output, batch):
        return False
    for row, gradient in enumerate(gradients):
        if gradient is not None:
            by_example = gradient.reshape(len(gradients), -1)
            others = torch.arange(len(gradients), device=gradient.device) != row
            if by_example[others].any():
                return False
    return True
