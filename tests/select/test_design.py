"""V against the paper's d × d form of it, its diagnostics against V itself, and what λ does at both ends."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from activedpo_cli.select.design.design import Design, design_matrix, pair_uncertainty


def pairs(count: int, proj_dim: int, seed: int) -> torch.Tensor:
    rows = torch.randn(count, proj_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if count > 2:
        rows[1], rows[2] = -rows[0], 0  # a repeated pair, the other way around, and one that says nothing
    return rows


SIZES = st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(0, 1000))
RIDGES = st.sampled_from([1e-3, 0.1, 1.0, 1e3])


@settings(deadline=None)
@given(SIZES, RIDGES)
def test_condition_is_that_of_v(size: tuple[int, int, int], ridge: float) -> None:
    rows = pairs(*size)
    expected = float(torch.linalg.cond(design_matrix(rows, ridge)))
    assert Design(rows, ridge).diagnostics().condition == pytest.approx(expected, rel=1e-6)


@settings(deadline=None)
@given(SIZES, RIDGES)
def test_effective_dimension_is_the_trace(size: tuple[int, int, int], ridge: float) -> None:
    """By inverses of both matrices that have it: the pairs' products, and V."""
    rows = pairs(*size)
    found = Design(rows, ridge).diagnostics().effective_dimension
    products = rows @ rows.T
    identity = torch.eye(len(rows), dtype=torch.float64)
    assert found == pytest.approx(float(torch.trace(products @ torch.inverse(products + ridge * identity))), abs=1e-6)
    assert found == pytest.approx(
        rows.shape[1] - ridge * float(torch.trace(torch.inverse(design_matrix(rows, ridge)))), abs=1e-6
    )


def test_the_two_ends_of_ridge() -> None:
    """Large: nothing counts but the norm. Small: every direction that was seen is known."""
    rows = pairs(6, 20, 3)
    large, small = Design(rows, 1e9).diagnostics(), Design(rows, 1e-12).diagnostics()
    assert large.condition == pytest.approx(1)
    assert large.effective_dimension == pytest.approx(0, abs=1e-6)
    assert small.effective_dimension == pytest.approx(torch.linalg.matrix_rank(rows).item())


@settings(deadline=None)
@given(SIZES, st.integers(1, 5), st.sampled_from([1e-5, 1e-3, 0.1, 30.0, 1e3]), st.integers(0, 9))
def test_norms_are_those_of_the_inverse(size: tuple[int, int, int], asked: int, ridge: float, added: int) -> None:
    """Whether pairs were in V from the start or were added to it one by one, of which the last may be in V already."""
    covered = pairs(*size)
    earlier, later = covered[: max(0, size[0] - added)], covered[max(0, size[0] - added) :]
    design = Design(earlier, ridge, picks=len(later))
    for feature in later:
        design.add(feature)
    rows = torch.cat([pairs(asked, size[1], 7), covered])
    inverse = torch.inverse(design_matrix(covered, ridge))
    torch.testing.assert_close(design.norms(rows), pair_uncertainty(rows, inverse), rtol=1e-6, atol=1e-9)
    expected = float(torch.linalg.cond(design_matrix(covered, ridge)))
    assert design.diagnostics().condition == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("copies", [1, 3])
def test_covered_directions_keep_their_digits_under_a_tiny_ridge(copies: int) -> None:
    """φ of norm 1e3 labelled k times, λ = 1e-9: φᵀV⁻¹φ = 1/(k + λ/‖φ‖²), while ‖φ‖²/λ is 1e15."""
    features = 1e3 * torch.linalg.qr(pairs(40, 6, 0)).Q.T
    found = Design(features.repeat(copies, 1), 1e-9).norms(features)
    assert found.tolist() == pytest.approx([copies**-0.5] * 6, rel=1e-12)


def test_zeros_and_float32() -> None:
    assert Design(torch.zeros(4, 2), 0.1).norms(torch.zeros(3, 2)).tolist() == [0.0] * 3
    assert Design(torch.zeros(0, 2), 4.0).norms(torch.tensor([[3.0, 4.0]])).tolist() == [2.5]


def test_a_pair_in_v_has_less_left_than_one() -> None:
    """φ in V leaves s/√(1 + s²) of a score s; worked by hand."""
    row = torch.tensor([[3.0, 4.0]])
    assert float(Design(row[:0], 0.25).norms(row)) == pytest.approx(10)
    assert float(Design(row, 0.25).norms(row)) == pytest.approx(10 / math.sqrt(101))


def test_the_papers_form_worked_by_hand() -> None:
    """λ = 2, φ = (1, 1): V = [[3, 1], [1, 3]], V⁻¹ = [[3, −1], [−1, 3]] / 8.

    ‖(1, 1)‖² in V⁻¹ = (3 − 1 − 1 + 3) / 8 = 1/2; ‖(1, −1)‖² = (3 + 1 + 1 + 3) / 8 = 1; ‖(2, 0)‖² = 12 / 8.
    """
    design = design_matrix(torch.tensor([[1.0, 1.0]]), ridge=2.0)
    assert torch.equal(design, torch.tensor([[3.0, 1.0], [1.0, 3.0]]))
    uncertainty = pair_uncertainty(torch.tensor([[1.0, 1.0], [1.0, -1.0], [2.0, 0.0]]), design.inverse())
    assert torch.allclose(uncertainty, torch.tensor([0.5, 1.0, 1.5]).sqrt())


def test_without_labels_the_papers_form_is_the_ridge() -> None:
    assert torch.equal(design_matrix(torch.zeros(0, 3), ridge=0.5), 0.5 * torch.eye(3))


@pytest.mark.parametrize("ridge", [0.0, -1.0, math.nan])
def test_ridge_must_be_positive(ridge: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Design(torch.ones(1, 2), ridge)
    with pytest.raises(ValueError, match="positive"):
        design_matrix(torch.zeros(1, 2), ridge)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_must_be_finite(value: float) -> None:
    broken = torch.tensor([[1.0, value]])
    with pytest.raises(ValueError, match="finite"):
        Design(broken, 1.0)
    with pytest.raises(ValueError, match="finite"):
        Design(torch.ones(1, 2), 1.0).norms(broken)
