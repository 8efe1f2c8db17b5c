import math

import pytest
import torch

from activedpo_cli.select.scores.entropy import answer_entropy, mutual_information


def entropy(p: float) -> float:
    return 0.0 if p in (0.0, 1.0) else -p * math.log(p) - (1 - p) * math.log(1 - p)


def test_equals_the_definition() -> None:
    margins = 3 * torch.randn(5, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for found, column in zip(mutual_information(margins).tolist(), margins.sigmoid().T.tolist(), strict=True):
        assert found == pytest.approx(entropy(sum(column) / 5) - sum(map(entropy, column)) / 5, abs=1e-12)


def test_heads_that_agree_leave_nothing_to_learn() -> None:
    assert mutual_information(torch.tensor([[0.0, 3.0, -700.0]] * 4, dtype=torch.float64)).tolist() == [0.0] * 3
    margins = 9 * torch.randn(1, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert mutual_information(margins.expand(7, 50)).tolist() == [0.0] * 50  # exactly, so that they tie


def test_certain_heads_that_contradict_each_other_are_worth_one_bit() -> None:
    for size in (50.0, 1e6, 1e300):
        margins = torch.tensor([[size], [-size]], dtype=torch.float64)
        assert mutual_information(margins).tolist() == pytest.approx([math.log(2)])


def test_entropy_of_large_margins_keeps_its_digits() -> None:
    """H(σ(m)) → (m + 1) e⁻ᵐ; written with p and 1 − p it would be 0 beyond 37."""
    found = answer_entropy(torch.tensor([0.0, -1.0, 100.0], dtype=torch.float64)).tolist()
    assert found == pytest.approx([math.log(2), entropy(1 / (1 + math.e)), 101 * math.exp(-100)], rel=1e-12)
