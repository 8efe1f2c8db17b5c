from dataclasses import replace

import pytest
from random_pool import random_pool, seeded

from activedpo_cli.select.methods import activedpo, largest_norm


def test_sorted_by_norm() -> None:
    pool = random_pool()
    features = pool.features.double()
    norms = [float((features[a] - features[b]).norm()) for a, b in zip(pool.row_a, pool.row_b, strict=True)]
    chosen = largest_norm.choose(pool, 10, largest_norm.Settings(), seeded())
    assert chosen.rows.tolist() == sorted(range(len(pool)), key=lambda row: -norms[row])[:10]
    assert chosen.scores.tolist() == pytest.approx(sorted(norms, reverse=True)[:10])


def test_it_is_activedpo_for_a_large_ridge() -> None:
    pool = random_pool(labelled=20)
    limit = activedpo.choose(pool, 12, activedpo.Settings(ridge=1e7), seeded())
    assert largest_norm.choose(pool, 12, largest_norm.Settings(), seeded()).rows.tolist() == limit.rows.tolist()


def test_unit_differences_tie_and_rounding_does_not_choose() -> None:
    """Norms of 1 ± 1e-16: over 100 seeds nearly every one of 12 pairs comes first, and no pair more than half the time."""
    pool = random_pool(prompts=2, normalise="pair")
    firsts = [int(largest_norm.choose(pool, 1, largest_norm.Settings(), seeded(seed)).rows[0]) for seed in range(100)]
    assert len(set(firsts)) >= 10
    assert max(map(firsts.count, firsts)) < 50


def test_history_is_not_looked_at() -> None:
    pool = random_pool(labelled=9)
    rows = [
        largest_norm.choose(candidates, 9, largest_norm.Settings(), seeded()).rows.tolist()
        for candidates in (pool, replace(pool, labelled=None))
    ]
    assert rows[0] == rows[1]
