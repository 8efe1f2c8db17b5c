"""Picks from a pool: the same as from all, whatever the pool, and with few readings of all."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from activedpo_cli.select.design.greedy import (
    Pick,
    PoolSize,
    UnrepeatableError,
    greedy_uncertainty,
    pooled_greedy,
)


class Counted:
    """Rows of a tensor, and how often each was read."""

    def __init__(self, features: Tensor) -> None:
        self.features = features
        self.shape = (features.shape[0], features.shape[1])
        self.read_rows = 0
        self.taken_rows = 0

    def read(self, start: int, stop: int) -> Tensor:
        self.read_rows += stop - start
        return self.features[start:stop]

    def take(self, rows: Tensor) -> Tensor:
        assert (rows.diff() > 0).all()
        self.taken_rows += len(rows)
        return self.features[rows]


def normal(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(2, 27),
    pool=st.integers(1, 12),
    most=st.integers(1, 40),
    chunk=st.integers(1, 50),
    limit=st.sampled_from([None, 1, 2]),
    equal=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_the_pool_changes_no_pick(
    count: int, pool: int, most: int, chunk: int, limit: int | None, equal: bool, seed: int
) -> None:
    """Also where all tie at first, and where groups close."""
    features = normal(count, 6, seed)
    if equal:
        features = torch.nn.functional.normalize(features)
    priority = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    groups = torch.arange(count) // 3
    budget = max(1, count // 3)
    expected, scores = greedy_uncertainty(features, features[:3], 0.1, budget, priority, groups, limit)
    found = pooled_greedy(
        Counted(features), features[:3], 0.1, budget, priority, PoolSize(pool, most, chunk), groups, limit
    )
    assert found.rows == expected.tolist()
    assert found.scores == pytest.approx(scores.tolist(), rel=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: normal(20_000, 32, 0),
        lambda: torch.nn.functional.normalize(normal(20_000, 32, 0)),
        lambda: normal(20_000, 32, 0) * torch.logspace(-1, 1, 20_000)[:, None],
    ],
    ids=["normal", "unit norm", "ragged"],
)
def test_all_are_read_at_most_once_in_three_picks(make: Callable[[], Tensor]) -> None:
    """With a pool of a fiftieth."""
    rows = Counted(make())
    choice = pooled_greedy(rows, rows.features[:0], 0.1, 30, torch.arange(20_000), PoolSize(400, 400, 3000))
    assert choice.passes <= 10
    assert rows.read_rows == choice.passes * 20_000
    assert rows.taken_rows <= choice.passes * 400 + 30


@pytest.mark.parametrize(
    ("scale", "labelled", "ridge", "dim"),
    [(1, 4, 0.1, 8), (1, 0, 1e-9, 8), (100, 6, 0.1, 8), (100, 12, 1e-3, 8), (9, 30, 0.1, 24)],
)
def test_an_interrupted_choice_goes_on_to_the_same_bits(scale: float, labelled: int, ridge: float, dim: int) -> None:
    """Wherever it was interrupted, whether a pick took an exact look or not, and whether somebody follows the picks."""
    features, priority, size = normal(200, dim, 0) * scale, torch.arange(200), PoolSize(5, 5, 64)
    log: list[Pick] = []
    whole = pooled_greedy(Counted(features), features[:labelled], ridge, 20, priority, size, after_pick=log.append)
    assert log == whole.picks
    assert pooled_greedy(Counted(features), features[:labelled], ridge, 20, priority, size).picks == log
    for kept in range(21):
        resumed = pooled_greedy(Counted(features), features[:labelled], ridge, 20, priority, size, picked=log[:kept])
        assert resumed.picks == whole.picks


def test_both_ways_to_pick_are_among_those_that_are_repeated() -> None:
    features, size = normal(200, 8, 0) * 100, PoolSize(5, 5, 64)
    picks = pooled_greedy(Counted(features), features[:6], 0.1, 20, torch.arange(200), size).picks
    assert {pick.exactly for pick in picks} == {False, True}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda log: [log[0], log[0]], "can not be taken"),
        (lambda log: [log[0], replace(log[1], row=200)], "none of 200"),
        (lambda log: [log[0], replace(log[1], row=-1)], "none of 200"),
        (lambda log: [log[0], replace(log[1], row=log[0].row ^ 1)], "can not be taken"),
        (lambda log: [log[0], replace(log[1], score=log[1].score * 1.001)], "has the score"),
    ],
)
def test_picks_that_were_none_are_not_repeated(change: Callable[[list[Pick]], list[Pick]], said: str) -> None:
    """A row that is taken, is no row, or is of a group that is closed; a score that is another."""
    features, groups, size = normal(200, 8, 0), torch.arange(200) // 2, PoolSize(5, 5, 64)
    arguments = (features[:4], 0.1, 3, torch.arange(200), size, groups, 1)
    picks = pooled_greedy(Counted(features), *arguments).picks
    assert pooled_greedy(Counted(features), *arguments, picked=picks[:2]).picks == picks
    with pytest.raises(UnrepeatableError, match=said):
        pooled_greedy(Counted(features), *arguments, picked=change(picks))


def test_sizes_follow_the_memory() -> None:
    size = PoolSize.within(24 * 10**6, 10**9, 100)
    assert (size.first, size.most, size.chunk) == (10**4, 10**4, 3750)
    assert PoolSize.within(1, 10, 100) == PoolSize(1, 1, 1)
    assert PoolSize.within(10**9, 10, 1).first == 10


def test_rows_that_are_not_finite_are_refused() -> None:
    features = normal(10, 3, 0)
    features[7, 1] = torch.inf
    with pytest.raises(ValueError, match="finite"):
        pooled_greedy(Counted(features), features[:0], 0.1, 2, torch.arange(10), PoolSize(2, 2, 4))
