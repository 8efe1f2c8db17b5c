"""The pairs whose responses lie farthest apart in frozen mean-pooled states; a control without gradients and labels.

z is the difference of two responses' last hidden states under π_ref, each averaged over the response's tokens. It costs a
forward pass a response and knows nothing of the policy, the oracle or what was chosen before.

Source: this project (docs/results-stories.md). Score: ‖z‖.
Cost: O(n d) for n candidates and d the hidden size.
"""

import torch

from activedpo_cli.base.settings import Section
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget, take_best

NEEDS: tuple[str, ...] = ("mean_hidden",)


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
    norms = torch.linalg.vector_norm(candidates.differences("mean_hidden"), dim=1)
    return take_best(candidates, norms, budget, generator, max_per_prompt)
