import math
from dataclasses import replace

import pytest
import torch
from random_pool import random_pool, seeded

from activedpo_cli.select.methods import bal_pm, bald
from activedpo_cli.select.methods.base import Candidates


def point(pool: Candidates, prompt: int) -> list[float]:
    """The mean state of a prompt's responses."""
    assert pool.mean_hidden is not None
    own = {
        int(r) for a, b, p in zip(pool.row_a, pool.row_b, pool.prompt_index, strict=True) if p == prompt for r in (a, b)
    }
    return (sum(pool.mean_hidden[r].double() for r in own) / len(own)).tolist()  # type: ignore[union-attr]


def digamma(n: int) -> float:
    return sum(1 / i for i in range(1, n)) - 0.5772156649015329


@pytest.mark.parametrize("labelled", [0, 6])
@pytest.mark.parametrize("neighbours", [1, 4])
def test_picks_are_those_of_an_honest_loop(labelled: int, neighbours: int) -> None:
    pool = random_pool(prompts=9, labelled=labelled)
    settings = bal_pm.Settings(entropy_weight=0.3, neighbours=neighbours)
    found = bal_pm.choose(pool, 8, settings, seeded())
    information = bald.disagreement(pool, bald.Settings(), seeded()).tolist()
    points = torch.tensor([point(pool, prompt) for prompt in range(9)])
    mean, deviation = points.mean(dim=0), points.std(dim=0, correction=0)
    scaled = ((points - mean) / deviation).tolist()
    labels = []
    if pool.labelled is not None:
        states = pool.labelled.mean_hidden
        assert states is not None
        pairs = zip(pool.labelled.row_a.tolist(), pool.labelled.row_b.tolist(), strict=True)
        labels = [(((states[a] + states[b]).double() / 2 - mean) / deviation).tolist() for a, b in pairs]
    radius = [sorted(math.dist(scaled[p], scaled[q]) for q in range(9) if q != p)[neighbours - 1] for p in range(9)]
    rows: list[int] = []
    for picked, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True):
        worth = {}
        for row in set(range(len(pool))) - set(rows):
            p = int(pool.prompt_index[row])
            near = sum(math.dist(scaled[p], label) <= radius[p] + 1e-9 for label in labels)
            entropy = math.log(2 * radius[p] + 1e-4) - digamma(near + 1) / 8
            worth[row] = information[row] + 0.3 * entropy
        assert picked == max(worth, key=worth.__getitem__)
        assert score == pytest.approx(worth[picked])
        rows.append(picked)
        labels.append(scaled[int(pool.prompt_index[picked])])


def test_without_weight_it_is_bald() -> None:
    pool = random_pool()
    found = bal_pm.choose(pool, 12, bal_pm.Settings(entropy_weight=0), seeded())
    expected = bald.choose(pool, 12, bald.Settings(), seeded())
    assert found.rows.tolist() == expected.rows.tolist()
    assert torch.equal(found.scores, expected.scores)


def test_a_prompt_far_from_all_others_comes_first_where_entropy_decides() -> None:
    pool = random_pool(prompts=12, labelled=0)
    assert pool.mean_hidden is not None
    states = pool.mean_hidden.clone()
    states[4 * 5 : 4 * 6] += 30
    pool = replace(pool, mean_hidden=states)
    found = bal_pm.choose(pool, 1, bal_pm.Settings(entropy_weight=100, neighbours=2), seeded())
    assert int(pool.prompt_index[found.rows[0]]) == 5
