"""How many floating-point operations a plain pass takes, counted from the sizes of the model's matrices."""

from torch import nn
from transformers.pytorch_utils import Conv1D

from activedpo_cli.bench.workload import Workload


def plain_flops(model: nn.Module, workload: Workload) -> int:
    """4 · (weights of all linear layers but the output one) · tokens + 4 · (output layer's weights) · response tokens.

    Two operations for each weight and token in the forward pass, and as many in the backward pass, which computes no
    gradient of a weight. Attention's products of tokens with tokens are left out, as is what checkpointing repeats.
    """
    head: nn.Module = model.get_output_embeddings()  # type: ignore[operator]
    linear = {
        module.weight for module in model.modules() if module is not head and isinstance(module, (nn.Linear, Conv1D))
    }
    weights = sum(weight.numel() for weight in linear)
    at_responses = sum(weight.numel() for weight in head.parameters())
    return 4 * (weights * workload.tokens + at_responses * workload.responses * workload.response_tokens)
