"""Farthest-first and k-means++ against loops that compute every distance from its definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from activedpo_cli.select.scores.spread import farthest_first, sample_by_distance, squared_distances


def random_features(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(first: Tensor, second: Tensor) -> float:
    return min(float((first - second).norm()), float((first + second).norm()))


def honest_farthest_first(features: Tensor, labelled: Tensor, budget: int) -> tuple[list[int], list[float]]:
    """Every distance is computed once, from its definition, however often it is looked at."""
    rows: list[int] = []
    scores: list[float] = []
    pairs, history = features.tolist(), labelled.tolist()
    to_history = [[plain_distance(pair, centre) for centre in history] for pair in pairs]
    to_pairs = [[plain_distance(pair, centre) for centre in pairs] for pair in pairs]
    for _ in range(budget):
        nearest = {
            row: min([*to_history[row], *(to_pairs[row][taken] for taken in rows)], default=math.hypot(*pairs[row]))
            for row in range(len(pairs))
            if row not in rows
        }
        rows.append(max(nearest, key=nearest.__getitem__))
        scores.append(nearest[rows[-1]])
    return rows, scores


def plain_distance(first: list[float], second: list[float]) -> float:
    opposite = [-value for value in second]
    return min(math.dist(first, second), math.dist(first, opposite))


@given(
    count=st.integers(1, 12), dim=st.integers(1, 6), labelled=st.sampled_from([0, 1, 5, 70]), seed=st.integers(0, 10**6)
)
@settings(max_examples=60, deadline=None)
def test_farthest_first_equals_the_honest_loop(count: int, dim: int, labelled: int, seed: int) -> None:
    """70 labelled pairs are more than are compared at once."""
    features, history = random_features(count, dim, seed), random_features(labelled, dim, seed + 1)
    rows, scores = farthest_first(features, history, count, torch.arange(count))
    expected_rows, expected_scores = honest_farthest_first(features, history, count)
    assert scores.tolist() == pytest.approx(expected_scores, rel=1e-6, abs=1e-6)
    assert rows.tolist() == expected_rows


def test_the_sign_of_a_pair_is_nothing() -> None:
    features, labelled = random_features(9, 4, 0), random_features(3, 4, 1)
    signs = torch.tensor([1, -1, -1, 1, -1, 1, 1, -1, 1.0], dtype=torch.float64)[:, None]
    plain = farthest_first(features, labelled, 9, torch.arange(9))
    flipped = farthest_first(features * signs, -labelled, 9, torch.arange(9))
    assert plain[0].tolist() == flipped[0].tolist()
    assert squared_distances(features, -features).diagonal().tolist() == [0.0] * 9


def test_copies_have_distance_zero_exactly_and_come_last() -> None:
    """In float64 the expanded square leaves 1e-16 of the norms, in either direction."""
    originals = 1e3 * random_features(4, 50, 3)
    features = torch.cat([originals, originals, -originals])
    rows, scores = farthest_first(features, originals[:0], 12, torch.randperm(12))
    assert sorted(row % 4 for row in rows[:4].tolist()) == [0, 1, 2, 3]
    assert scores[4:].tolist() == [0.0] * 8


def test_ties_follow_the_priority() -> None:
    priority = torch.tensor([3, 5, 0, 4, 1, 2])
    rows, scores = farthest_first(torch.eye(6), torch.zeros(0, 6), 6, priority)
    assert rows.tolist() == [2, 4, 5, 0, 3, 1]
    assert scores.tolist() == pytest.approx([1.0] + [2**0.5] * 5)
    zeros, _ = farthest_first(torch.zeros(6, 3), torch.zeros(2, 3), 6, priority)
    assert zeros.tolist() == [2, 4, 5, 0, 3, 1]


def test_limits_per_group() -> None:
    groups = torch.tensor([0, 0, 0, 1, 1, 2])
    features = torch.diag(torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]))
    rows, _ = farthest_first(features, torch.zeros(0, 6), 3, torch.arange(6), groups, 1)
    assert sorted(groups[rows].tolist()) == [0, 1, 2]
    with pytest.raises(ValueError, match="fewer"):
        farthest_first(features, torch.zeros(0, 6), 4, torch.arange(6), groups, 1)
    drawn, _ = sample_by_distance(features, torch.zeros(0, 6), 3, torch.Generator(), groups, 1)
    assert sorted(groups[drawn].tolist()) == [0, 1, 2]


def test_features_must_be_finite() -> None:
    bad = torch.tensor([[float("nan"), 0.0]])
    with pytest.raises(ValueError, match="finite"):
        farthest_first(bad, torch.zeros(0, 2), 1, torch.arange(1))
    with pytest.raises(ValueError, match="finite"):
        sample_by_distance(torch.eye(2), bad, 1, torch.Generator())


def test_draws_follow_the_squared_distances() -> None:
    """Second picks given the first, over 1000 seeds: each within 5 standard deviations of its share of D²."""
    features = torch.tensor([[3.0, 0.0], [0.0, 2.0], [-3.0, 0.1], [0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    lengths, apart = features.norm(dim=1).tolist(), [[distance(a, b) for b in features] for a in features]
    counts = torch.zeros(5, 5, dtype=torch.float64)
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        (first, second), scores = (found.tolist() for found in sample_by_distance(features, features[:0], 2, generator))
        counts[first, second] += 1
        assert scores == pytest.approx([lengths[first], apart[first][second]])
    squares = features.square().sum(dim=1)
    firsts = squares / squares.sum()
    seconds = torch.tensor(apart, dtype=torch.float64).square()
    expected = 1000 * firsts[:, None] * seconds / seconds.sum(dim=1, keepdim=True)
    assert counts[3].sum() == 0  # no distance from the start, two equal responses
    assert ((counts - expected).abs() <= 5 * expected.sqrt() + 1e-9).all()


def test_draws_are_even_where_nothing_is_away_from_the_centres() -> None:
    """400 draws of one of four pairs, standard deviation √(400 · ¼ · ¾) = 8.7; 5 of them allowed."""
    counts, features, labelled = torch.zeros(4), torch.ones(4, 3), -torch.ones(1, 3)
    for seed in range(400):
        rows, scores = sample_by_distance(features, labelled, 4, torch.Generator().manual_seed(seed))
        assert sorted(rows.tolist()) == [0, 1, 2, 3]
        assert scores.tolist() == [0.0] * 4
        counts[rows[0]] += 1
    assert (counts - 100).abs().max() < 44
