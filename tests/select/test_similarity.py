import math

import pytest
import torch

from activedpo_cli.select.scores.batch import absolute_cosines, absolute_cosines_to


def test_angles_known_by_hand() -> None:
    """60° between the first two, whatever their lengths; the third is at right angles to the first."""
    rows = torch.tensor([[2.0, 0.0], [0.5, math.sqrt(3) / 2], [0.0, -5.0]])
    assert absolute_cosines(rows).tolist() == pytest.approx([0.5, 0, math.sqrt(3) / 2], abs=1e-6)


def test_which_response_is_called_a_does_not_matter() -> None:
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    signs = torch.tensor([[1.0], [-1.0], [1.0], [1.0], [-1.0], [-1.0]])
    assert torch.equal(absolute_cosines(rows), absolute_cosines(signs * rows))


def test_every_two_pairs_once_and_never_above_one() -> None:
    rows = torch.randn(1, 50, generator=torch.Generator().manual_seed(1)).repeat(9, 1)
    found = absolute_cosines(rows)
    assert len(found) == 9 * 8 / 2
    assert found.max() <= 1
    assert found.tolist() == pytest.approx([1] * 36)


def test_zeros_and_single_pairs() -> None:
    assert absolute_cosines(torch.tensor([[1.0, 0.0], [0.0, 0.0]])).tolist() == [0]
    assert absolute_cosines(torch.ones(1, 3)).tolist() == []
    assert absolute_cosines(torch.ones(0, 3)).tolist() == []


def test_to_one_pair_as_between_every_two() -> None:
    rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rows[3] = 0
    assert absolute_cosines_to(rows[0], rows[1:]).tolist() == pytest.approx(absolute_cosines(rows)[:4].tolist())
    assert absolute_cosines_to(torch.ones(3), torch.ones(0, 3)).tolist() == []
