import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from activedpo_cli.select.design.design_matrix import design_matrix, pair_uncertainty
from activedpo_cli.select.design.design_uncertainty import design_uncertainty


def random_features(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    count=st.integers(1, 8),
    dim=st.integers(1, 7),
    labelled=st.integers(0, 12),
    ridge=st.sampled_from([1e-5, 0.1, 30.0]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=100, deadline=None)
def test_equals_the_inverse_of_v(count: int, dim: int, labelled: int, ridge: float, seed: int) -> None:
    features, history = random_features(count, dim, seed), random_features(labelled, dim, seed + 1)
    expected = pair_uncertainty(features, torch.linalg.inv(design_matrix(history, ridge)))
    assert design_uncertainty(features, history, ridge).tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize("copies", [1, 3])
def test_covered_directions_keep_their_digits_under_a_tiny_ridge(copies: int) -> None:
    """φ of norm 1e3 labelled k times, λ = 1e-9: φᵀV⁻¹φ = 1/(k + λ/‖φ‖²), while ‖φ‖²/λ is 1e15."""
    features = 1e3 * torch.linalg.qr(random_features(40, 6, 0)).Q.T
    found = design_uncertainty(features, features.repeat(copies, 1), 1e-9)
    assert found.tolist() == pytest.approx([copies**-0.5] * 6, rel=1e-12)


def test_zeros_and_float32() -> None:
    assert design_uncertainty(torch.zeros(3, 2), torch.zeros(4, 2), 0.1).tolist() == [0.0] * 3
    assert design_uncertainty(torch.tensor([[3.0, 4.0]]), torch.zeros(0, 2), 4.0).tolist() == [2.5]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="ridge"):
        design_uncertainty(torch.eye(2), torch.eye(2), 0.0)
    with pytest.raises(ValueError, match="finite"):
        design_uncertainty(torch.eye(2), torch.tensor([[float("inf"), 0.0]]), 1.0)
