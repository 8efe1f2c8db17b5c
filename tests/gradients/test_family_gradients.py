"""Features of many model families against an honest backward pass of one sequence at a time."""

import pytest
import torch
from model_families import CONFIGS, REFUSED, family_policy
from torch import Tensor, nn

from activedpo_cli.base.errors import UsageError
from activedpo_cli.gradients.batch import pad_responses
from activedpo_cli.gradients.lora_matrices import MatrixShape, active_lora_matrices
from activedpo_cli.gradients.per_response import response_gradients
from activedpo_cli.gradients.policy_check import check_policy
from activedpo_cli.gradients.projections.base import OfFormedGradients
from activedpo_cli.gradients.quality import cosine_errors

PROMPTS, RESPONSES = [[5, 66, 32], [7, 8, 99, 14, 15, 16], [200, 41]], [[71, 22, 30], [51, 62], [13, 4, 5, 6, 72, 8]]
CASES = [(family, wanted) for family in CONFIGS for wanted in ("attention", "all-linear")]


class Whole(OfFormedGradients):
    """Every entry in a coordinate of its own."""

    def __init__(self, model: nn.Module) -> None:
        self.places, size = {}, 0
        for matrix in active_lora_matrices(model):
            self.places[matrix.shape] = slice(size, size + matrix.shape.size)
            size += matrix.shape.size
        super().__init__(size, 0)

    def add_flat(self, shape: MatrixShape, gradients: Tensor, into: Tensor) -> None:
        into[:, self.places[shape]] += gradients

    def matrix(self, shape: MatrixShape) -> Tensor:
        raise NotImplementedError


def honest(policy: nn.Module) -> tuple[Tensor, Tensor]:
    """log π of each response, and the gradient with respect to every adapter weight, by autograd alone."""
    weights = [parameter for name, parameter in policy.named_parameters() if "lora_" in name]
    logps, gradients = [], []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        logits = policy(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        total = logits.log_softmax(-1)[range(len(response)), response].sum()
        found = torch.autograd.grad(total, weights, allow_unused=True)
        logps.append(total.detach())
        pairs = zip(found, weights, strict=True)
        gradients.append(torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for g, w in pairs]))
    return torch.stack(logps), torch.stack(gradients)


@pytest.mark.parametrize(("family", "wanted"), [case for case in CASES if case not in REFUSED])
def test_features_are_the_gradients_of_training(family: str, wanted: str) -> None:
    policy = family_policy(family, wanted)
    logps, gradients = honest(policy)
    batch = pad_responses(PROMPTS, RESPONSES, 0, "cpu")
    alone = check_policy(policy).alone
    found = response_gradients(policy, batch, Whole(policy), exact_norms="always", alone=alone)
    assert found.logps.tolist() == pytest.approx(logps.tolist(), rel=1e-5)
    assert found.exact_norms.tolist() == pytest.approx(gradients.norm(dim=1).tolist(), rel=1e-4)
    expected = gradients @ gradients.T
    assert torch.allclose(found.features @ found.features.T, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))
    errors = cosine_errors(policy, batch, Whole(policy), alone)
    assert len(errors) == 3
    assert errors[:, 0].abs().max() < 1e-5, "nothing is lost, so the projection has no error"


@pytest.mark.parametrize(("family", "wanted"), sorted(REFUSED))
def test_what_cannot_run_is_refused_by_name(family: str, wanted: str) -> None:
    with pytest.raises(UsageError, match="adapter.target_modules") as refused:
        check_policy(family_policy(family, wanted))
    assert "model.layers.0.mlp.router" in refused.value.details
    assert refused.value.hint == "--set adapter.target_modules=k_proj,o_proj,q_proj,v_proj"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", CONFIGS)
def test_half_precision_raises_no_alarm(family: str, dtype: torch.dtype) -> None:
    check_policy(family_policy(family, "attention", dtype=dtype, random_b=False))
