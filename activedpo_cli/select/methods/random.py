"""Uniformly random pairs, the baseline that every method has to beat.

Pairs are drawn without replacement; with a limit per prompt, draws beyond it are passed over.

Source: the random arm of arXiv 2505.19241, section 4. Score: 0 for every pair. Cost: O(n) for n candidates.
"""

import torch

from activedpo_cli.base.settings import Section
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget, seeded_order, take_in_order

NEEDS: tuple[str, ...] = ()


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
    order = seeded_order(len(candidates), generator)
    rows = take_in_order(order, candidates.prompt_index, budget, max_per_prompt)
    return Selection(rows=rows, scores=torch.zeros(budget))
