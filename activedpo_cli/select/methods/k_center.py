"""k centres: the pair farthest from everything labelled or taken so far, again and again.

The distance of φ and φ′ is min(‖φ − φ′‖, ‖φ + φ′‖), since (a, b) and (b, a) are one pair. Labelled pairs are centres from
the start; without any, the first is the pair with the longest φ, the farthest from two equal responses.

Source: Sener and Savarese, arXiv 1708.00489, its greedy form (Gonzalez 1985). Score: distance from the nearest centre when
the pair was taken. Cost: O(n d (s + B)) for n candidates, d features, s pairs labelled earlier and budget B.
"""

import torch

from activedpo_cli.base.settings import Section
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget, seeded_order
from activedpo_cli.select.scores.spread import farthest_first

NEEDS: tuple[str, ...] = ("features",)


class Settings(Section):
    """There is nothing to set."""


def choose(
    candidates: Candidates,
    budget: int,
    settings: Settings,
    generator: torch.Generator,
    max_per_prompt: int | None = None,
) -> Selection:
    """Choose `budget` pairs; raises ValueError where so many can not be taken."""
    check_budget(candidates, budget, max_per_prompt)
    rows, scores = farthest_first(
        candidates.pair_features(),
        candidates.history(),
        budget,
        priority=seeded_order(len(candidates), generator),
        groups=candidates.prompt_index,
        max_per_group=max_per_prompt,
    )
    return Selection(rows=rows, scores=scores)
