"""Gradient checkpointing in evaluation mode, which transformers offers for training alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from activedpo_cli.base.errors import UsageError


@contextmanager
def checkpointed_layers(model: nn.Module, *, enabled: bool = True) -> Iterator[None]:
    """Keep only what goes into each layer, and compute the rest of it again in the backward pass.

    Raises UsageError for an architecture whose layers transformers does not mark as fit for it.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)] if enabled else []
    if enabled and not layers:
        raise UsageError(
            "this model has no layers that can be checkpointed",
            hint="leave gradient checkpointing off; where memory is short, a smaller --tokens-per-batch helps",
        )
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
