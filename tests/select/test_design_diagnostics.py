"""Diagnostics of V against V itself, and what λ does at both ends."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from activedpo_cli.select.design.design_diagnostics import design_diagnostics, uncertainty_given
from activedpo_cli.select.design.design_matrix import design_matrix, pair_uncertainty


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
    assert design_diagnostics(rows, ridge).condition == pytest.approx(expected, rel=1e-6)


@settings(deadline=None)
@given(SIZES, RIDGES)
def test_effective_dimension_is_the_trace(size: tuple[int, int, int], ridge: float) -> None:
    """By inverses of both matrices that have it: the pairs' products, and V."""
    rows = pairs(*size)
    found = design_diagnostics(rows, ridge).effective_dimension
    products = rows @ rows.T
    identity = torch.eye(len(rows), dtype=torch.float64)
    assert found == pytest.approx(float(torch.trace(products @ torch.inverse(products + ridge * identity))), abs=1e-6)
    assert found == pytest.approx(
        rows.shape[1] - ridge * float(torch.trace(torch.inverse(design_matrix(rows, ridge)))), abs=1e-6
    )


def test_the_two_ends_of_ridge() -> None:
    """Large: nothing counts but the norm. Small: every direction that was seen is known."""
    rows = pairs(6, 20, 3)
    large, small = design_diagnostics(rows, 1e9), design_diagnostics(rows, 1e-12)
    assert large.condition == pytest.approx(1)
    assert large.effective_dimension == pytest.approx(0, abs=1e-6)
    assert small.effective_dimension == pytest.approx(torch.linalg.matrix_rank(rows).item())


@settings(deadline=None)
@given(SIZES, st.integers(1, 5), RIDGES)
def test_what_is_left_is_the_norm_in_the_inverse(size: tuple[int, int, int], asked: int, ridge: float) -> None:
    covered = pairs(*size)
    rows = torch.cat([pairs(asked, size[1], 7), covered])
    expected = pair_uncertainty(rows, torch.inverse(design_matrix(covered, ridge)))
    torch.testing.assert_close(uncertainty_given(rows, covered, ridge), expected, rtol=1e-6, atol=1e-9)


def test_a_pair_in_v_has_less_left_than_one() -> None:
    """φ in V leaves s/√(1 + s²) of a score s; worked by hand."""
    row = torch.tensor([[3.0, 4.0]])
    assert float(uncertainty_given(row, row[:0], 0.25)) == pytest.approx(10)
    assert float(uncertainty_given(row, row, 0.25)) == pytest.approx(10 / math.sqrt(101))


@pytest.mark.parametrize("ridge", [0.0, -1.0, math.nan])
def test_ridge_must_be_positive(ridge: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        design_diagnostics(torch.ones(1, 2), ridge)
    with pytest.raises(ValueError, match="positive"):
        uncertainty_given(torch.ones(1, 2), torch.ones(1, 2), ridge)


def test_features_must_be_finite() -> None:
    broken = torch.tensor([[1.0, math.nan]])
    with pytest.raises(ValueError, match="finite"):
        design_diagnostics(broken, 1.0)
    with pytest.raises(ValueError, match="finite"):
        uncertainty_given(torch.ones(1, 2), broken, 1.0)
