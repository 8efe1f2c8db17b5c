"""The pairs of whose order the policy is least certain, the opposite of `aplp-certainty`.

Δr̂ = β (log π/π_ref of a − log π/π_ref of b) is the margin of the implicit reward. SHARP and W-SHARP rank by
1/|2μ − 1| and 2√(μ(1 − μ))/|2μ − 1| with μ = σ(Δr̂), which is this order; so is the rule by which Ji et al. ask inside a
batch. At t = 1 all margins are zero and the choice is random.

Source: Belakaria et al., arXiv 2503.22137 (SHARP). Score: |Δr̂| in nats, smallest first.
Cost: O(n log n) for n candidates.
"""

import torch

from activedpo_cli.base.settings import Section
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget, take_best

NEEDS: tuple[str, ...] = ("logps", "ref_logps")


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
    margins = candidates.margins().abs()
    return take_best(candidates, margins, budget, generator, max_per_prompt, largest_first=False)
