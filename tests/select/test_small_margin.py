from dataclasses import replace

import pytest
import torch
from random_pool import random_pool, seeded

from activedpo_cli.select.methods import aplp_certainty, small_margin


def test_the_order_is_that_of_sharp() -> None:
    """Both of its ratios, written with μ = σ(Δr̂) as published, largest first."""
    pool = random_pool(beta=0.02)
    mu = pool.margins().sigmoid()
    for sharpe in (1 / (2 * mu - 1).abs(), 2 * (mu * (1 - mu)).sqrt() / (2 * mu - 1).abs()):
        found = small_margin.choose(pool, 20, small_margin.Settings(), seeded())
        assert found.rows.tolist() == sharpe.argsort(descending=True)[:20].tolist()


def test_it_is_the_opposite_of_certainty() -> None:
    """Public defect: a margin strategy that sorts the wrong way."""
    pool = random_pool()
    smallest = small_margin.choose(pool, len(pool), small_margin.Settings(), seeded())
    largest = aplp_certainty.choose(pool, len(pool), aplp_certainty.Settings(), seeded())
    assert smallest.rows.tolist() == largest.rows.flip(0).tolist()
    assert smallest.scores.tolist() == pytest.approx(sorted(pool.margins().abs().tolist()))


def test_sides_do_not_matter() -> None:
    pool = random_pool()
    turned = replace(pool, row_a=pool.row_b, row_b=pool.row_a)
    rows = [small_margin.choose(c, 9, small_margin.Settings(), seeded()).rows for c in (pool, turned)]
    assert torch.equal(*rows)
