"""Change how a model behaves for one measurement, and leave no trace."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout and the like off; every module's own mode is restored."""
    was_training = [module for module in model.modules() if module.training]
    if was_training:
        model.eval()
    try:
        yield
    finally:
        for module in was_training:
            module.training = True


@contextmanager
def frozen_parameters(model: nn.Module) -> Iterator[None]:
    """Let no parameter require a gradient, so that none is computed for a weight; each is restored."""
    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, requires_grad in required:
        if requires_grad:
            parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, requires_grad in required:
            if parameter.requires_grad != requires_grad:  # the caller may let some of them require one meanwhile
                parameter.requires_grad_(requires_grad)


@contextmanager
def embeddings_as_leaf(model: nn.Module) -> Iterator[list[Tensor]]:
    """Start the graph at the input embeddings; the list yielded receives them on each forward pass."""
    leaves: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_(True)
        leaves.append(leaf)
        return leaf.clone()  # some models scale their embeddings in place, which a leaf does not allow

    embeddings: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    handle = embeddings.register_forward_hook(keep)
    try:
        yield leaves
    finally:
        handle.remove()
