import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from activedpo_cli.select.scores.ranking import grouped, ranked


@given(
    values=st.lists(st.sampled_from([0.0, -1.5, 2.0, 3.25, 1e-30]), min_size=1, max_size=12), seed=st.integers(0, 99)
)
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("largest_first", [True, False])
def test_ranking_equals_a_sort_by_value_and_place(values: list[float], seed: int, largest_first: bool) -> None:
    shuffled = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    place = {row: at for at, row in enumerate(shuffled.tolist())}
    sign = -1 if largest_first else 1
    expected = sorted(range(len(values)), key=lambda row: (sign * values[row], place[row]))
    assert ranked(torch.tensor(values), shuffled, largest_first=largest_first).tolist() == expected


def test_rounding_does_not_order() -> None:
    """Unit norms that differ by 1e-16, as after a division, follow the shuffled order; a real difference does not."""
    values = torch.tensor([1 - 1e-16, 1.0, 1 + 2e-16, 1 + 1e-6], dtype=torch.float64)
    assert ranked(values, torch.tensor([1, 3, 2, 0])).tolist() == [3, 1, 2, 0]
    assert ranked(values, torch.tensor([2, 0, 3, 1])).tolist() == [3, 2, 0, 1]


def test_one_row_and_none() -> None:
    assert ranked(torch.tensor([5.0]), torch.tensor([0])).tolist() == [0]
    assert ranked(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).tolist() == []
    assert grouped(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_a_group_moves_up_to_its_first_row() -> None:
    groups = torch.tensor([7, 7, 3, 3, 5])
    assert grouped(torch.tensor([3, 0, 4, 2, 1]), groups).tolist() == [3, 2, 0, 1, 4]
