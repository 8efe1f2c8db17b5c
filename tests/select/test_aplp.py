from dataclasses import replace

import pytest
import torch
from random_pool import RESPONSES, random_pool, seeded

from activedpo_cli.select.methods import aplp, aplp_certainty, entropy
from activedpo_cli.select.methods.base import Candidates


def honest_choice(pool: Candidates, budget: int, over_generate: int, limit: int | None) -> list[int]:
    """Prompts by entropy until their pairs fill `over_generate` batches, then pairs by |Δr̂|."""
    of_prompt = {int(p): [r for r in range(len(pool)) if pool.prompt_index[r] == p] for p in pool.prompt_index}
    entropies = {p: -float(pool.logps[RESPONSES * p : RESPONSES * (p + 1)].double().mean()) for p in of_prompt}
    kept: list[int] = []
    for prompt in sorted(entropies, key=lambda p: -entropies[p]):
        if sum(min(len(of_prompt[p]), limit or 99) for p in kept) < over_generate * budget:
            kept.append(prompt)
    margins = pool.margins().abs().tolist()
    chosen: list[int] = []
    for row in sorted((r for p in kept for r in of_prompt[p]), key=lambda r: -margins[r]):
        if sum(int(pool.prompt_index[r] == pool.prompt_index[row]) for r in chosen) < (limit or 99):
            chosen.append(row)
    return chosen[:budget]


@pytest.mark.parametrize("limit", [None, 1, 2])
@pytest.mark.parametrize("over_generate", [1, 2, 3, 16])
@pytest.mark.parametrize("seed", range(4))
def test_entropy_then_certainty(seed: int, over_generate: int, limit: int | None) -> None:
    pool = random_pool(prompts=12, seed=seed)
    found = aplp.choose(pool, 5, aplp.Settings(over_generate=over_generate), seeded(), limit)
    assert found.rows.tolist() == honest_choice(pool, 5, over_generate, limit)
    assert torch.equal(found.scores, pool.margins().abs()[found.rows])


def test_the_ends_are_entropy_and_certainty() -> None:
    pool = random_pool(prompts=12)
    kept = aplp.choose(pool, 12, aplp.Settings(over_generate=1), seeded()).rows
    assert set(kept.tolist()) == set(entropy.choose(pool, 12, entropy.Settings(), seeded()).rows.tolist())
    everything = aplp.choose(pool, 12, aplp.Settings(over_generate=99), seeded()).rows
    assert torch.equal(everything, aplp_certainty.choose(pool, 12, aplp_certainty.Settings(), seeded()).rows)


def test_prompts_of_high_entropy_are_kept_not_of_low() -> None:
    """Public defect: cumulative log-probabilities are summed without the minus, which keeps the lowest entropy."""
    pool = random_pool(prompts=4, logps=-torch.tensor([5.0, 50.0, 500.0, 0.5]).repeat_interleave(RESPONSES))
    found = aplp.choose(pool, 6, aplp.Settings(over_generate=1), seeded())
    assert pool.prompt_index[found.rows].tolist() == [2] * 6


def test_the_first_iteration_draws_from_the_kept_prompts() -> None:
    """Public defect: at t = 1 all margins are 0 and the order is undefined. Here a seed decides, among kept prompts."""
    pool = random_pool(prompts=12, labelled=0)
    tied = replace(pool, ref_logps=pool.logps)
    kept = set(honest_choice(tied, 24, 1, None))
    settings = aplp.Settings(over_generate=4)
    batches = [aplp.choose(tied, 6, settings, seeded(seed)).rows.tolist() for seed in (0, 1, 2, 0)]
    assert batches[0] == batches[3]
    assert len({tuple(batch) for batch in batches}) == 3
    assert all(set(batch) <= kept for batch in batches)


def test_tied_prompts_are_not_kept_in_shreds() -> None:
    """Equal entropies: as many whole prompts as are needed, others by other seeds."""
    pool = random_pool(prompts=12)
    pool = replace(pool, logps=torch.full_like(pool.logps, -7.0))
    seen = set()
    for seed in range(20):
        rows = aplp.choose(pool, 6, aplp.Settings(over_generate=1), seeded(seed)).rows
        assert pool.prompt_index[rows].unique().numel() == 1
        seen.add(int(pool.prompt_index[rows[0]]))
    assert len(seen) > 5
