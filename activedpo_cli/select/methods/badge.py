"""BADGE on gradient differences: pairs drawn far from each other, by k-means++ seeding.

Each pair is drawn with probability ∝ D², D being its distance from the nearest pair labelled or drawn so far, where the
distance of φ and φ′ is min(‖φ − φ′‖, ‖φ + φ′‖); without labels the first is drawn ∝ ‖φ‖². Two things differ from the
published method: labelled pairs are centres, and φ has no factor σ(−|Δr̂|), the residual under the answer that the policy
expects, so that no log-probabilities are needed (at t = 1 it is ½ for every pair).

Source: Ash et al., arXiv 1906.03671. Score: D when the pair was drawn; draws are random, so it need not fall.
Cost: O(n d (s + B)) for n candidates, d features, s pairs labelled earlier and budget B.
"""

import torch

from activedpo_cli.base.settings import Section
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget
from activedpo_cli.select.scores.spread import sample_by_distance

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
    rows, scores = sample_by_distance(
        candidates.pair_features(),
        candidates.history(),
        budget,
        generator,
        groups=candidates.prompt_index,
        max_per_group=max_per_prompt,
    )
    return Selection(rows=rows, scores=scores)
