from dataclasses import replace

import pytest
import torch
from random_pool import random_pool, seeded

from activedpo_cli.select.methods import k_center
from activedpo_cli.select.methods.base import Candidates

SETTINGS = k_center.Settings()


def coverage(pool: Candidates, rows: list[int]) -> float:
    """The largest distance of a candidate from its nearest labelled or chosen pair."""
    features = pool.pair_features()
    centres = torch.cat([pool.history(), features[rows]])
    apart = torch.minimum(torch.cdist(features, centres), torch.cdist(features, -centres))
    return float(apart.amin(dim=1).max())


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("labelled", [0, 6])
def test_each_pick_is_the_worst_covered_pair(labelled: int, pair: bool) -> None:
    pool = random_pool(labelled=labelled, normalise="pair" if pair else "none")
    found = k_center.choose(pool, 12, SETTINGS, seeded())
    rows, scores = found.rows.tolist(), found.scores.tolist()
    for count in range(0 if labelled else 1, 12):
        assert scores[count] == pytest.approx(coverage(pool, rows[:count]), rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_at_most_twice_the_best_radius(seed: int) -> None:
    """Gonzalez's guarantee, against every choice of three centres."""
    pool = random_pool(prompts=2, labelled=0, seed=seed)
    best = min(coverage(pool, rows) for rows in torch.combinations(torch.arange(len(pool)), 3).tolist())
    found = coverage(pool, k_center.choose(pool, 3, SETTINGS, seeded()).rows.tolist())
    assert best <= found + 1e-9
    assert found <= 2 * best + 1e-9


def test_what_is_labelled_is_covered() -> None:
    """The very pairs that would be taken, labelled now with sides swapped, are not taken."""
    pool = random_pool(labelled=0)
    first = k_center.choose(pool, 6, SETTINGS, seeded()).rows
    labelled = random_pool(labelled=6).labelled
    assert labelled is not None
    responses = torch.cat([pool.features[pool.row_b[first]], pool.features[pool.row_a[first]]])
    again = replace(pool, labelled=replace(labelled, features=responses))
    second = k_center.choose(again, len(pool), SETTINGS, seeded())
    assert set(second.rows[-6:].tolist()) == set(first.tolist())
    assert second.scores[-6:].tolist() == [0.0] * 6
