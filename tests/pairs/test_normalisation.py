import torch
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.pairs.pair_features import unit_rows


def test_three_four_five() -> None:
    assert torch.allclose(unit_rows(torch.tensor([[3.0, 4.0], [0.0, -2.0]])), torch.tensor([[0.6, 0.8], [0.0, -1.0]]))


def test_zero_rows_stay_zero_and_the_argument_is_unchanged() -> None:
    features = torch.tensor([[0.0, 0.0], [5.0, 0.0]])
    before = features.clone()
    assert torch.equal(unit_rows(features), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert torch.equal(features, before)


@given(st.floats(-37, 37), st.integers(0, 1000))
def test_norms_are_one_at_any_scale(exponent: float, seed: int) -> None:
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)) * 10.0**exponent
    norms = torch.linalg.vector_norm(unit_rows(features), dim=1)
    assert torch.allclose(norms, torch.ones(4), atol=1e-4)


def test_no_rows() -> None:
    assert unit_rows(torch.zeros(0, 3)).shape == (0, 3)
