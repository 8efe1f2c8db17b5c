import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from activedpo_cli.select.scores.ranking import standardised
from activedpo_cli.statistics.bradley_terry import PredictedGaps, fit_bradley_terry, predicted_gaps


@given(st.integers(0, 9), st.integers(1, 6), st.sampled_from([0.01, 1.0, 30.0]), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_mean_and_deviation_are_those_of_the_full_laplace_posterior(
    labelled: int, width: int, l2: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randn(12, width, generator=generator)
    known = torch.randn(labelled, width, generator=generator)
    preferred = torch.randint(-1, 2, (labelled,), generator=generator)
    found = predicted_gaps(pairs, known, preferred, l2)
    scale = pairs.double().square().sum(dim=1).mean().sqrt()
    z, x = pairs.double() / scale, known.double() / scale
    w = fit_bradley_terry(x, preferred, l2)
    p = (x @ w).sigmoid()
    gradient = x.T @ (p - (preferred.double() + 1) / 2) + l2 * w
    assert gradient.abs().max() < 1e-7, "the head is the most likely one"
    covariance = torch.linalg.inv(x.T @ torch.diag(p * (1 - p)) @ x + l2 * torch.eye(width, dtype=torch.float64))
    assert torch.allclose(found.mean, z @ w, atol=1e-9)
    assert torch.allclose(found.deviation, (z @ covariance @ z.T).diagonal().sqrt(), rtol=1e-7)


def test_the_expected_size_is_the_integral() -> None:
    means, deviations = torch.tensor([0.0, 0.3, -2.0, 5.0]).double(), torch.tensor([1.0, 0.5, 1.5, 0.01]).double()
    found = PredictedGaps(means, deviations).expected_size()
    nodes = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-(nodes**2) / 2) / math.sqrt(2 * math.pi)
    for mean, deviation, value in zip(means, deviations, found, strict=True):
        integral = torch.trapezoid((mean + deviation * nodes).abs() * density, nodes)
        assert float(value) == pytest.approx(float(integral), rel=1e-6)


def test_a_certain_gap_has_its_own_size() -> None:
    gaps = PredictedGaps(torch.tensor([-2.0, 0.0]).double(), torch.zeros(2).double())
    assert gaps.expected_size().tolist() == pytest.approx([2.0, 0.0], abs=1e-300)


def test_standardised_values_have_mean_zero_and_deviation_one() -> None:
    values = torch.tensor([1.0, 2.0, 6.0]).double()
    found = standardised(values)
    assert float(found.mean()) == pytest.approx(0, abs=1e-12)
    assert float(found.square().mean()) == pytest.approx(1)
    assert found.argsort().tolist() == [0, 1, 2]
    assert standardised(torch.full((4,), 0.1)).tolist() == [0.0] * 4
