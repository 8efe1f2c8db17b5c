"""Which response of a pair is called a is an accident of the file: no method may look at it."""

from dataclasses import replace
from types import ModuleType

import pytest
import torch
from random_pool import random_pool, seeded

from activedpo_cli.base import discovery

TEXTS = tuple(f"{'word ' * (1 + row % 5)}{row * 7919 % 1000}" for row in range(28))


@pytest.fixture(params=sorted(discovery.available("acquisition")))
def method(request: pytest.FixtureRequest) -> ModuleType:
    return discovery.load("acquisition", request.param)


@pytest.mark.parametrize("labelled", [0, 9])
def test_swapped_sides_give_the_same_pairs_and_scores(method: ModuleType, labelled: int) -> None:
    """Some candidates and all labelled pairs swapped, with their answers."""
    pool = random_pool(labelled=labelled, texts=TEXTS)
    swap = torch.arange(len(pool)) % 3 == 0
    past = pool.labelled
    if past is not None:
        past = replace(past, row_a=past.row_b, row_b=past.row_a, preferred=-past.preferred)
    swapped = replace(
        pool,
        row_a=torch.where(swap, pool.row_b, pool.row_a),
        row_b=torch.where(swap, pool.row_a, pool.row_b),
        labelled=past,
    )
    plain, other = (method.choose(c, 12, method.Settings(), seeded(4)) for c in (pool, swapped))
    assert plain.rows.tolist() == other.rows.tolist()
    assert plain.scores.tolist() == pytest.approx(other.scores.tolist(), rel=1e-6)
