import pytest
import torch
from random_pool import RESPONSES, random_pool, seeded

from activedpo_cli.select.methods import entropy

SETTINGS = entropy.Settings()


def test_the_prompts_of_highest_entropy_come_first() -> None:
    """Public defects: the sign is wrong, keeping the lowest; and entropies are mixed across prompts."""
    pool = random_pool(prompts=7)
    honest = [-float(pool.logps[RESPONSES * p : RESPONSES * (p + 1)].double().mean()) for p in range(7)]
    found = entropy.choose(pool, 18, SETTINGS, seeded())
    best = sorted(range(7), key=lambda prompt: -honest[prompt])[:3]
    assert pool.prompt_index[found.rows].tolist() == [prompt for prompt in best for _ in range(6)]
    assert found.scores.tolist() == pytest.approx([honest[prompt] for prompt in best for _ in range(6)])


def test_values_by_hand_whatever_the_order_of_the_file() -> None:
    """Entropies 0, 10, 20 and 30: in a public implementation prompt s read the responses of prompt s/n."""
    logps = -torch.tensor([0.0, 10.0, 20.0, 30.0]).repeat_interleave(RESPONSES)
    found = entropy.choose(random_pool(prompts=4, logps=logps), 24, SETTINGS, seeded())
    assert found.scores.tolist() == [30.0] * 6 + [20.0] * 6 + [10.0] * 6 + [0.0] * 6


def test_one_pair_of_each_of_the_best_prompts() -> None:
    pool = random_pool(prompts=7)
    found = entropy.choose(pool, 7, SETTINGS, seeded(), max_per_prompt=1)
    assert sorted(pool.prompt_index[found.rows].tolist()) == list(range(7))
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_a_prompts_pairs_and_tied_prompts_are_in_a_seeded_order() -> None:
    pool = random_pool(prompts=5, logps=torch.full((20,), -3.0))
    batches = [entropy.choose(pool, 12, SETTINGS, seeded(seed)).rows for seed in range(30)]
    assert len({tuple(batch.tolist()) for batch in batches}) == 30
    for batch in batches:
        assert pool.prompt_index[batch].unique().numel() == 2  # tied prompts are taken whole
