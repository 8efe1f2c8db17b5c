import torch

from activedpo_cli.select.methods import random as random_method
from activedpo_cli.select.methods.base import Candidates


def test_every_pair_is_equally_likely() -> None:
    """2000 draws of 3 from 10: each row 600 times, standard deviation √(2000 · 0.3 · 0.7) = 20.5; 5 of them allowed."""
    candidates = Candidates(
        row_a=torch.arange(10), row_b=torch.arange(10) + 10, prompt_index=torch.arange(10).div(2, rounding_mode="floor")
    )
    counts = torch.zeros(10)
    for seed in range(2000):
        generator = torch.Generator().manual_seed(seed)
        chosen = random_method.choose(candidates, 3, random_method.Settings(), generator)
        counts[chosen.rows] += 1
        assert chosen.scores.tolist() == [0.0, 0.0, 0.0]
    assert counts.sum() == 6000
    assert (counts - 600).abs().max() < 103
