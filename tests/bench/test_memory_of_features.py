"""The engine's memory, as the tracker sees it: what features take above the plain pass, and what that grows with.

Until the backward pass, tokens × rank numbers are held for each B, and tokens × the compressed or the whole input for each
A. So the adapter's size has no part in it, and its rank has little while layers are wider than that.
"""

from typing import Any

import torch

from activedpo_cli.bench.measuring import peak_memory
from activedpo_cli.bench.workload import Workload
from activedpo_cli.gradients.per_response import plain_pass, response_gradients
from activedpo_cli.gradients.projections import make_projection

CPU = torch.device("cpu")
WIDTH = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 1}
"""Some times the rank, as in real models."""


def excess(policy: Any, proj_dim: int, responses: int = 8) -> int:
    """Bytes above the plain pass; the projection's draws are made on the way and counted."""
    (batch,) = Workload(responses, 8, 8, 10**6, 0).batches(64, CPU)
    plain_pass(policy, batch)
    projection = make_projection("factored", proj_dim, 0)
    plain = peak_memory(lambda: plain_pass(policy, batch), CPU)
    return peak_memory(lambda: response_gradients(policy, batch, projection), CPU) - plain


def lora_parameters(policy: Any) -> int:
    return sum(weight.numel() for name, weight in policy.named_parameters() if ".lora_" in name)


def test_eight_times_the_adapter_takes_no_more(make_random_policy: Any) -> None:
    """Rank 16, whose gradients are formed one matrix at a time, and rank 128, whose factors are compressed."""
    small, large = make_random_policy(r=16, **WIDTH), make_random_policy(r=128, **WIDTH)
    assert lora_parameters(large) == 8 * lora_parameters(small)
    needed = excess(large, 1024)
    assert needed <= excess(small, 1024)
    assert needed < 0.1 * 8 * lora_parameters(large) * 4, "a tenth of what eight whole gradients take"


def test_it_grows_with_the_batch_and_with_the_dimension(make_random_policy: Any) -> None:
    policy = make_random_policy(r=128, **WIDTH)
    needed = excess(policy, 1024)
    assert 1.5 < excess(policy, 1024, responses=16) / needed <= 2, "draws are made once, whatever the batch"
    assert excess(policy, 4096) > needed
