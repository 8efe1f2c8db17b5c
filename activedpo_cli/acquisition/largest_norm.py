"""The pairs with the longest gradient difference, whatever was chosen or labelled before; a control without V.

What λ → ∞ makes of `activedpo`: what that method gains over this one, it gains by V. Under `select.normalise: pair` all
norms are equal, and the choice is random.

Source: the first pick of arXiv 2505.19241, Eq. (3) with V = λI, for the whole batch. Score: ‖φ‖.
Cost: O(n d) for n candidates and d features.
"""

import torch

from activedpo_cli.acquisition.base import Candidates, Selection, check_budget, seeded_order, take_in_order
from activedpo_cli.core.ranking import ranked
from activedpo_cli.settings import Section

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
    norms = torch.linalg.vector_norm(candidates.pair_features(), dim=1).cpu()
    order = ranked(norms, seeded_order(len(candidates), generator))
    rows = take_in_order(order, candidates.prompt_index, budget, max_per_prompt)
    return Selection(rows=rows, scores=norms[rows])
