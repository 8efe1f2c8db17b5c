import pytest
import torch
from random_pool import random_pool, seeded

from activedpo_cli.select.methods import true_gap


def test_the_largest_score_gaps_first_whichever_side_is_ahead() -> None:
    pool = random_pool()
    assert pool.scores is not None
    gaps = [abs(float(pool.scores[a]) - float(pool.scores[b])) for a, b in zip(pool.row_a, pool.row_b, strict=True)]
    found = true_gap.choose(pool, 9, true_gap.Settings(), seeded())
    assert found.rows.tolist() == sorted(range(len(gaps)), key=lambda row: -gaps[row])[:9]
    assert found.scores.tolist() == pytest.approx([gaps[row] for row in found.rows.tolist()])


def test_without_scores_it_says_so() -> None:
    with pytest.raises(ValueError, match="no scores"):
        true_gap.choose(random_pool(scores=None), 3, true_gap.Settings(), seeded())


def test_equal_gaps_are_left_to_the_seed() -> None:
    pool = random_pool(scores=torch.zeros(28))
    first, again, other = (true_gap.choose(pool, 9, true_gap.Settings(), seeded(seed)).rows for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
