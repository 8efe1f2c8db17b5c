"""The loop that stands for others' way of collecting gradients: its numbers are right, and its time is scaled right."""

from typing import Any

import pytest
import torch
from torch import Tensor

from activedpo_cli.bench import one_at_a_time
from activedpo_cli.bench.one_at_a_time import (
    OneAtATime,
    one_at_a_time_gradients,
    project_densely,
    sign_blocks,
    time_one_at_a_time,
)
from activedpo_cli.bench.workload import Workload

CPU = torch.device("cpu")


def honest_gradient(policy: Any, token_ids: Tensor, prompt_tokens: int) -> Tensor:
    """From full logits, by autograd of every LoRA parameter by its name."""
    weights = [weight.requires_grad_(True) for name, weight in policy.named_parameters() if ".lora_" in name]
    logps = policy(input_ids=token_ids[None]).logits[0].log_softmax(dim=-1)
    total = sum(logps[place - 1, token_ids[place]] for place in range(prompt_tokens, len(token_ids)))
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(total, weights)])
    policy.requires_grad_(False)
    return gradient


def test_features_are_an_explicit_matrix_times_honest_gradients(make_random_policy: Any) -> None:
    policy = make_random_policy()
    singles = Workload(3, 4, 5, 1, 0).batches(64, CPU)
    assert [batch.input_ids.shape for batch in singles] == [(1, 9)] * 3
    expected = torch.stack([honest_gradient(policy, batch.input_ids[0], 4) for batch in singles])
    gradients = one_at_a_time_gradients(policy, singles)
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)
    assert not any(weight.requires_grad or weight.grad is not None for weight in policy.parameters())

    size, proj_dim = gradients.shape[1], 13
    signs = torch.cat([block for _, block in sign_blocks(size, proj_dim, 5, torch.float32, CPU)])
    assert signs.shape == (size, proj_dim)
    torch.testing.assert_close(
        project_densely(gradients, proj_dim, 5), expected @ signs / proj_dim**0.5, rtol=1e-3, atol=1e-5
    )


def test_blocks_are_fair_signs_that_do_not_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_at_a_time, "ENTRIES_AT_ONCE", 100)
    blocks = dict(sign_blocks(1000, 31, 0, torch.float64, CPU))
    assert list(blocks) == list(range(0, 1000, 3))
    signs = torch.cat(list(blocks.values()))
    assert signs.shape == (1000, 31)
    assert set(signs.unique().tolist()) == {-1, 1}
    gram = signs.T @ signs / 1000
    assert (gram - torch.eye(31)).abs().max() < 0.16, "five standard deviations"
    assert (signs @ signs.T / 31 - torch.eye(1000)).abs().max() < 1, "no row comes twice"


def test_the_projection_of_a_share_is_scaled_to_all(make_random_policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    projected: list[int] = []
    monkeypatch.setattr(one_at_a_time, "project_densely", lambda vectors, *_: projected.append(vectors.shape[1]))
    monkeypatch.setattr(one_at_a_time, "seconds", lambda work, _: (work(), 6.0)[1])
    policy = make_random_policy()
    size = sum(weight.numel() for name, weight in policy.named_parameters() if ".lora_" in name)
    found = time_one_at_a_time(policy, Workload(2, 4, 4, 1, 0).batches(64, CPU), 10, 0, entries_timed=size * 10 // 4)
    assert projected == [1, size // 4], "a warm-up, and a quarter"
    assert found == OneAtATime(2, 6.0, pytest.approx(24.0, rel=1e-3), pytest.approx(0.25, rel=1e-3))  # type: ignore[arg-type]
    assert found.seconds_for(64) == pytest.approx(30 * 32, rel=1e-3)


def test_no_more_than_are_projected_together(make_random_policy: Any) -> None:
    with pytest.raises(ValueError, match="17 responses"):
        time_one_at_a_time(make_random_policy(), Workload(17, 2, 2, 1, 0).batches(64, CPU), 8, 0)
