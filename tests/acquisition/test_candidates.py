import pytest
import torch

from activedpo_cli.acquisition.base import Candidates, capacity, check_budget, difference_features, take_in_order


def candidates(**columns: object) -> Candidates:
    return Candidates(
        row_a=torch.tensor([0, 0, 3]), row_b=torch.tensor([1, 2, 2]), prompt_index=torch.tensor([0, 0, 1]), **columns
    )


FEATURES = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3.0, 4.0], [3.0, 8.0]])


def test_pair_features_are_differences_of_rows() -> None:
    assert candidates(features=FEATURES).pair_features().tolist() == [[3, 4], [0, 0], [0, 4]]


def test_pair_features_of_unit_norm() -> None:
    normalised = candidates(features=FEATURES, normalise_pairs=True).pair_features()
    assert torch.allclose(normalised, torch.tensor([[0.6, 0.8], [0, 0], [0, 1]], dtype=torch.float64))


def test_float32_features_give_unit_norms_exact_enough_to_tie() -> None:
    """In float32 the norms would differ by 1e-7 and rounding would decide what is picked first."""
    features = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(100)
    pair_features = difference_features(features, rows, rows + 100, normalise=True)
    norms = torch.linalg.vector_norm(pair_features, dim=1)
    assert (norms - 1).abs().max() < 1e-14


def test_history_is_empty_where_nothing_is_labelled() -> None:
    assert candidates(features=FEATURES).history().shape == (0, 2)
    labelled = torch.ones(2, 2)
    assert torch.equal(candidates(features=FEATURES, labelled_pair_features=labelled).history(), labelled)


def test_missing_features_are_named() -> None:
    with pytest.raises(ValueError, match="features"):
        candidates().pair_features()
    with pytest.raises(ValueError, match="features"):
        candidates().history()


def test_capacity_counts_what_a_limit_leaves() -> None:
    prompt_index = torch.tensor([4, 4, 4, 7, 9, 9])
    assert [capacity(prompt_index, limit) for limit in (None, 1, 2, 3)] == [6, 3, 5, 6]
    with pytest.raises(ValueError, match="between 1 and 2"):
        check_budget(candidates(), 3, max_per_prompt=1)


def test_take_in_order_passes_over_full_prompts() -> None:
    prompt_index = torch.tensor([0, 0, 0, 1, 1])
    order = torch.tensor([2, 0, 4, 1, 3])
    assert take_in_order(order, prompt_index, 3).tolist() == [2, 0, 4]
    assert take_in_order(order, prompt_index, 2, max_per_prompt=1).tolist() == [2, 4]
