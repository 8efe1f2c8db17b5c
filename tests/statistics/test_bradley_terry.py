"""The fit against the loss as it is written, differentiated by autograd: a stationary point of it is the minimum."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from activedpo_cli.statistics.bradley_terry import fit_bradley_terry, fit_heads, preference_variance


def random_problem(labelled: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(labelled, dim, generator=generator, dtype=torch.float64)
    return features, torch.randint(-1, 2, (labelled,), generator=generator)


def honest_gradient(
    w: Tensor, features: Tensor, preferred: Tensor, l2: float, counts: Tensor, anchor: Tensor
) -> Tensor:
    """Of −Σ c log P(answer) + l2/2 ‖w − w₀‖², where a tie is half an answer to each side."""
    w = w.clone().requires_grad_()
    loss = l2 / 2 * (w - anchor).square().sum()
    for feature, answer, count in zip(features, preferred.tolist(), counts.tolist(), strict=True):
        log_yes, log_no = torch.nn.functional.logsigmoid(feature @ w), torch.nn.functional.logsigmoid(-(feature @ w))
        loss = loss - count * {1: log_yes, -1: log_no, 0: (log_yes + log_no) / 2}[answer]
    return torch.autograd.grad(loss, w)[0]


@given(
    labelled=st.integers(1, 15),
    dim=st.integers(1, 10),
    l2=st.sampled_from([1e-4, 0.1, 1.0, 50.0]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_every_head_is_stationary(labelled: int, dim: int, l2: float, seed: int) -> None:
    features, preferred = random_problem(labelled, dim, seed)
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 4, (3, labelled), generator=generator).double()
    anchors = torch.randn(3, dim, generator=generator, dtype=torch.float64) / l2**0.5
    heads = fit_heads(features, preferred, l2, counts, anchors)
    for w, count, anchor in zip(heads, counts, anchors, strict=True):
        gradient = honest_gradient(w, features, preferred, l2, count, anchor)
        assert float(gradient.norm()) <= 1e-8 * (1 + l2 * float((w - anchor).norm()))


def test_one_pair_in_closed_form() -> None:
    """φ = (2, 0), a preferred: w = (x, 0) with l2 x = 2 σ(−2x). For x = ½ that is l2 = 4 σ(−1)."""
    l2 = 4 / (1 + math.e)
    w = fit_bradley_terry(torch.tensor([[2.0, 0.0]]), torch.tensor([1]), l2)
    assert w.tolist() == pytest.approx([0.5, 0.0])
    assert fit_bradley_terry(torch.tensor([[-2.0, 0.0]]), torch.tensor([-1]), l2).tolist() == pytest.approx([0.5, 0.0])
    assert fit_bradley_terry(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), l2).tolist() == [0.0, 0.0]


def test_long_vectors_are_fitted_as_the_dual_says() -> None:
    """d = 500 ≫ 8 labels: w = Σ α φ with α = (t − σ(φ·w)) / l2, the stationarity written in the labels alone."""
    features, preferred = random_problem(8, 500, 1)
    w = fit_bradley_terry(features.float(), preferred, 0.3)
    features = features.float().double()
    alpha = ((preferred + 1) / 2 - (features @ w).sigmoid()) / 0.3
    assert torch.allclose(w, features.T @ alpha, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-6, 1e2, 1e5])
@pytest.mark.parametrize("l2", [1e-8, 1e-5, 1e3])
def test_extreme_scales_settle(scale: float, l2: float) -> None:
    """Separable labels: margins grow until l2 holds them. Anchors start them where σ is flat, half on the wrong side."""
    generator = torch.Generator().manual_seed(0)
    features = scale * torch.randn(20, 30, generator=generator, dtype=torch.float64)
    anchors = torch.stack([torch.zeros(30), torch.randn(30, generator=generator) * (1 + 20 / scale)]).double()
    heads = fit_heads(features, torch.ones(20, dtype=torch.int64), l2, torch.ones(2, 20), anchors)
    assert heads.isfinite().all()
    for w, anchor in zip(heads, anchors, strict=True):
        pull = features.T @ (-(features @ w)).sigmoid()  # equals l2 (w − w₀) at the minimum
        rounding = 1e-6 * float(pull.norm()) + 1e-15 * l2 * float(anchor.norm())
        assert torch.allclose(l2 * (w - anchor), pull, rtol=1e-6, atol=rounding)


def test_copies_and_zeros() -> None:
    features = torch.tensor([[1.0, 2.0]] * 5 + [[0.0, 0.0]] * 2)
    w = fit_bradley_terry(features, torch.tensor([1, 1, -1, 0, 1, 1, -1]), 0.1)
    assert float(w[1]) == pytest.approx(2 * float(w[0]))
    assert w[0] > 0
    assert fit_bradley_terry(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 1.0).tolist() == [0.0] * 3


def test_l2_must_be_positive() -> None:
    with pytest.raises(ValueError, match="l2"):
        fit_bradley_terry(torch.eye(2), torch.tensor([1, 1]), 0.0)


def test_preference_variance_is_the_derivative_of_the_sigmoid() -> None:
    margins = torch.linspace(-10, 10, 13, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(margins.sigmoid().sum(), margins)[0]
    assert torch.allclose(preference_variance(margins), expected, rtol=1e-9, atol=0)
    assert preference_variance(torch.tensor([40.0, -40.0]).double()).tolist() == pytest.approx([math.exp(-40)] * 2)
