"""The pairs of whose order the policy is most certain, the second half of `aplp` alone.

Δr̂ = β (log π/π_ref of a − log π/π_ref of b) is the margin of the implicit reward. At t = 1 the policy is π_ref, all margins
are zero and the choice is random. `small-margin` is the opposite choice.

Source: Muldrew et al., arXiv 2402.08114, its certainty score; probably what arXiv 2505.19241 calls APLP (its A.4).
Score: |Δr̂| in nats, largest first. Cost: O(n log n) for n candidates.
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
    certainty = candidates.margins().abs()
    return take_best(candidates, certainty, budget, generator, max_per_prompt)
