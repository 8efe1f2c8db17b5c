import pytest
import torch

from activedpo_cli.select.scores.ranking import OpenRows


def test_a_taken_row_closes() -> None:
    rows = OpenRows(3)
    rows.take(1)
    assert rows.mask.tolist() == [True, False, True]
    with pytest.raises(ValueError, match="row 1"):
        rows.take(1)


def test_a_group_closes_once_it_has_given_its_share() -> None:
    rows = OpenRows(5, torch.tensor([4, 4, 4, 9, 9]), 2)
    rows.take(0)
    assert rows.mask.tolist() == [False, True, True, True, True]
    rows.take(2)
    assert rows.mask.tolist() == [False, False, False, True, True]
    rows.take(3)
    assert rows.mask.tolist() == [False, False, False, False, True]
