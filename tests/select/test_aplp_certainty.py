from dataclasses import replace

import pytest
import torch
from random_pool import random_pool, seeded

from activedpo_cli.select.methods import aplp_certainty
from activedpo_cli.select.methods.base import Candidates

SETTINGS = aplp_certainty.Settings()


def honest_margins(pool: Candidates) -> list[float]:
    def reward(row: int) -> float:
        return pool.beta * (float(pool.logps[row]) - float(pool.ref_logps[row]))

    return [reward(a) - reward(b) for a, b in zip(pool.row_a.tolist(), pool.row_b.tolist(), strict=True)]


def test_lowest_uncertainty_as_published_is_the_largest_margin() -> None:
    """u = 1 − 2 |σ(Δr̂) − ½| is what the published code ranks by, lowest first."""
    pool = random_pool(beta=0.2)
    margins = torch.tensor(honest_margins(pool), dtype=torch.float64)
    uncertainty = 1 - 2 * (margins.sigmoid() - 0.5).abs()
    found = aplp_certainty.choose(pool, 15, SETTINGS, seeded())
    assert found.rows.tolist() == uncertainty.argsort()[:15].tolist()
    assert found.scores.tolist() == pytest.approx(margins.abs()[found.rows].tolist())


@pytest.mark.parametrize("prompts", [1, 2, 5, 11])
def test_every_candidate_gets_a_score(prompts: int) -> None:
    """Public defect: scoring in ⌊n / batch⌋ batches forgets the last ones. Here whatever the pool's size any row can win."""
    pool = random_pool(prompts=prompts, labelled=0)
    for row in range(len(pool)):
        lifted = pool.logps.clone()
        lifted[pool.row_a[row]] += 1e4
        lifted[pool.row_b[row]] -= 1e4
        assert aplp_certainty.choose(replace(pool, logps=lifted), 1, SETTINGS, seeded()).rows.tolist() == [row]


def test_a_pair_of_identical_responses_is_never_first() -> None:
    """Public defect: identical completions are not filtered. Their margin is 0, the last of all."""
    pool = random_pool()
    twins = pool.logps.clone(), pool.ref_logps.clone()
    for column in twins:
        column[pool.row_b[3]] = column[pool.row_a[3]]
    found = aplp_certainty.choose(replace(pool, logps=twins[0], ref_logps=twins[1]), len(pool), SETTINGS, seeded())
    assert int(found.rows[-1]) == 3
    assert float(found.scores[-1]) == 0


def test_the_first_iteration_is_random_and_reproducible() -> None:
    """Public defect: at t = 1 every reward is 0 and the order is whatever argsort gives."""
    pool = random_pool(labelled=0)
    tied = replace(pool, logps=pool.ref_logps)
    batches = [aplp_certainty.choose(tied, 5, SETTINGS, seeded(seed)).rows.tolist() for seed in (0, 1, 2, 0)]
    assert batches[0] == batches[3]
    assert len({tuple(sorted(batch)) for batch in batches}) == 3
