"""The first update of many model families: a policy that is its reference has no reward, whatever training mode does."""

import math

import pytest
import test_dpo
import torch
from model_families import CONFIGS, REFUSED, family_policy

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.train import trainer_setup

NOISY = ("mixtral", "phimoe")
"""Their routers add noise in training mode, where the configuration asks for it."""


def with_noise(family, size=0.3):
    policy = family_policy(family, "attention", random_b=False)
    for layer in policy.modules():
        for name in ("jitter_noise", "input_jitter_noise"):
            if hasattr(layer, name):
                setattr(layer, name, size)
    return policy


@pytest.mark.parametrize("family", [family for family in CONFIGS if family not in ("llama", "mistral")])
def test_the_first_loss_is_ln_2(family, tmp_path):
    wanted = "attention" if (family, "all-linear") in REFUSED else "all-linear"
    policy = family_policy(family, wanted, random_b=False)
    [first] = test_dpo.train(policy, test_dpo.examples(), scratch=tmp_path).metrics
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert abs(first["rewards/chosen"]) < 1e-5
    assert abs(first["rewards/rejected"]) < 1e-5
    assert first["grad_norm"] > 0


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", NOISY)
def test_noise_of_a_router_has_no_part_in_training(family, checkpointing, tmp_path):
    """Nor when layers are computed again in the backward pass: the update is the same, bit for bit."""
    settings = test_dpo.ONE_STEP.model_copy(update={"gradient_checkpointing": checkpointing})
    updated = []
    for size in (0.0, 0.3):
        policy = with_noise(family, size)
        [first] = test_dpo.train(policy, test_dpo.examples(), settings, scratch=tmp_path).metrics
        assert first["rewards/chosen"] == first["rewards/rejected"] == 0
        updated.append(test_dpo.weights(policy))
    assert all(torch.equal(value, updated[1][name]) for name, value in updated[0].items())


@pytest.mark.parametrize("family", NOISY)
def test_noise_that_remains_stops_before_the_update(family, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_setup, "base_in_evaluation_mode", lambda model: None)
    policy = with_noise(family)
    before = test_dpo.weights(policy)
    with pytest.raises(ActiveDPOError, match="step 1: a policy that is its reference has a reward of"):
        test_dpo.train(policy, test_dpo.examples(), scratch=tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in test_dpo.weights(policy).items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "mixtral", "gpt-oss"])
def test_half_precision_starts_at_the_reference_too(family, dtype, tmp_path):
    policy = family_policy(family, "attention", dtype=dtype, random_b=False)
    [first] = test_dpo.train(policy, test_dpo.examples(), scratch=tmp_path).metrics
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
