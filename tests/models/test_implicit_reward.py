import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.models.implicit_reward import dpo_loss, implicit_reward, preference_probability

FINITE = st.floats(-50, 50)


def test_implicit_reward_is_a_log_ratio_not_a_ratio() -> None:
    """π = 1/2, π_ref = 1/8, β = 0.1: 0.1 · log 4 = 0.1386, where the paper's misprint would give 0.1 · 4."""
    reward = implicit_reward(torch.tensor([math.log(1 / 2)]), torch.tensor([math.log(1 / 8)]), beta=0.1)
    assert reward.item() == pytest.approx(0.1 * math.log(4), rel=1e-6)


def test_preference_probability_of_known_odds() -> None:
    """e^{log 3} : e^0 = 3 : 1, so 3/4; at temperature 2 it is √3 : 1."""
    three = torch.tensor([math.log(3.0)])
    assert preference_probability(three, torch.zeros(1)).item() == pytest.approx(0.75)
    assert preference_probability(three, torch.zeros(1), temperature=2.0).item() == pytest.approx(3**0.5 / (1 + 3**0.5))


@given(FINITE, FINITE, st.floats(0.1, 10))
def test_the_two_orders_of_a_pair_have_probability_one_together(a: float, b: float, temperature: float) -> None:
    reward_a, reward_b = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    forward = preference_probability(reward_a, reward_b, temperature)
    backward = preference_probability(reward_b, reward_a, temperature)
    assert (forward + backward).item() == pytest.approx(1)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        preference_probability(torch.zeros(1), torch.zeros(1), temperature)


def test_dpo_loss_worked_by_hand() -> None:
    """β = 0.5; margins 0.5·((−1+2)−(−3+1)) = 1.5 and 0.5·((−2+2)−(−1+2)) = −0.5.

    −log σ(1.5) = log(1 + e^−1.5) = 0.201413, −log σ(−0.5) = log(1 + e^0.5) = 0.974077, mean 0.587745.
    """
    loss = dpo_loss(
        torch.tensor([-1.0, -2.0]),
        torch.tensor([-3.0, -1.0]),
        torch.tensor([-2.0, -2.0]),
        torch.tensor([-1.0, -2.0]),
        beta=0.5,
    )
    assert loss.item() == pytest.approx(0.587745, abs=1e-6)


def test_dpo_loss_of_the_reference_itself_is_log_two() -> None:
    logps = torch.randn(5, generator=torch.Generator().manual_seed(0))
    assert dpo_loss(logps, -logps, logps, -logps, beta=0.3).item() == pytest.approx(math.log(2))


def test_dpo_loss_does_not_overflow() -> None:
    zero = torch.zeros(1)
    assert dpo_loss(zero - 1e4, zero, zero, zero, beta=1.0).item() == pytest.approx(1e4)
