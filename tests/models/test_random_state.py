"""The save-and-restore helper of the libraries' global random state."""

import random

import numpy as np
import pytest
import torch

from activedpo_cli.models.random_state import seeded_library_state


def draws() -> tuple:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("seed", [0, 2**32 + 5, 2**63 - 1])
def test_seed_decides_inside_and_nothing_shows_outside(seed):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = [draws(), draws()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = draws()
    with seeded_library_state(seed):
        inside = draws()
    assert [first, draws()] == expected
    with seeded_library_state(seed):
        assert draws() == inside


def test_restored_after_an_error():
    torch.manual_seed(1)
    expected = float(torch.rand(()))
    torch.manual_seed(1)
    with pytest.raises(RuntimeError), seeded_library_state(9):
        raise RuntimeError
    assert float(torch.rand(())) == expected


@pytest.mark.parametrize("seed", [0, 2**32 + 5, 2**63 - 1])
def test_torch_draws_what_its_own_seeding_gives(seed):
    torch.manual_seed(seed)
    expected = torch.rand(3)
    with seeded_library_state(seed):
        assert torch.equal(torch.rand(3), expected)
