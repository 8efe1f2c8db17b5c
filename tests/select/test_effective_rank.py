import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.select.scores.batch import effective_rank


@pytest.mark.parametrize("count", [1, 2, 5])
def test_orthogonal_pairs_of_equal_norm_give_their_number(count: int) -> None:
    assert effective_rank(3.0 * torch.eye(7)[:count]) == pytest.approx(count)


def test_copies_of_one_pair_give_one() -> None:
    """Signs and lengths of the copies do not matter."""
    copies = torch.tensor([[1.0], [-1.0], [4.0]]) * torch.tensor([[0.5, 2.0, -1.0, 0.0]])
    assert effective_rank(copies) == pytest.approx(1)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.99])
def test_two_directions_give_the_entropy_of_their_shares(share: float) -> None:
    """Worked by hand: e^(−p ln p − (1 − p) ln(1 − p))."""
    rows = torch.diag(torch.tensor([math.sqrt(share), math.sqrt(1 - share)], dtype=torch.float64))
    expected = share**-share * (1 - share) ** -(1 - share)
    assert effective_rank(rows) == pytest.approx(expected)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_it_is_that_of_the_singular_values(pairs: int, proj_dim: int, seed: int) -> None:
    """numpy's singular values of the rows, squared; more pairs than dimensions and fewer."""
    rows = torch.randn(pairs, proj_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    squares = np.linalg.svd(rows.numpy(), compute_uv=False) ** 2
    shares = squares / squares.sum()
    shares = shares[shares > 0]
    assert effective_rank(rows) == pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())))


@pytest.mark.parametrize("scale", [1e-38, 1e-9, 1e9, 1e38])
def test_the_unit_does_not_matter(scale: float) -> None:
    rows = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    assert effective_rank(scale * rows) == pytest.approx(effective_rank(rows))


def test_nothing_covers_nothing() -> None:
    assert effective_rank(torch.zeros(0, 4)) == 0
    assert effective_rank(torch.zeros(3, 4)) == 0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_features_must_be_finite(broken: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        effective_rank(torch.tensor([[1.0, broken]]))
