"""The pairs whose two responses differ most as text; a control without any model.

The distance is 1 − Σ min(c, c′) / Σ max(c, c′) over the counts c of groups of three characters: equal texts have 0,
texts without a common group 1. What a method on gradients gains over this one, reading alone does not give.

Source: none, a control of this project; the distance is Ruzicka's. Score: the distance, from 0 to 1.
Cost: O(characters of all candidates).
"""

import torch

from activedpo_cli.base.settings import Section
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget, take_best
from activedpo_cli.select.scores.text_distance import text_distance

NEEDS: tuple[str, ...] = ("texts",)


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
    texts = candidates.texts
    if texts is None:
        raise ValueError("these candidates have no texts")
    pairs = zip(candidates.row_a.tolist(), candidates.row_b.tolist(), strict=True)
    distances = torch.tensor([text_distance(texts[a], texts[b]) for a, b in pairs], dtype=torch.float64)
    return take_best(candidates, distances, budget, generator, max_per_prompt)
