"""The pairs whose oracle scores differ most: a ceiling that reads the answers before it buys them, for experiments only.

It asks the oracle about every candidate, so it saves no label. What it gains over random is what knowing the score gaps can
gain; a criterion without the answers can be measured by how much of that it gets.

Source: none; the control of every experiment here. Score: |score of a − score of b|.
Cost: O(n) for n candidates, and an oracle's score for every response.
"""

import torch

from activedpo_cli.base.settings import Section
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget, take_best

NEEDS: tuple[str, ...] = ("scores",)


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
    scores = candidates.column("scores").double()
    gaps = (scores[candidates.row_a] - scores[candidates.row_b]).abs()
    return take_best(candidates, gaps, budget, generator, max_per_prompt)
