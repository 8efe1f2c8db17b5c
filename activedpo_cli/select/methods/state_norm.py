"""The pairs whose responses lie farthest apart in frozen mean-pooled states; a control without gradients and labels.

z is the difference of two responses' last hidden states under π_ref, each averaged over the response's tokens. It costs a
forward pass a response and knows nothing of the policy, the oracle or what was chosen before.

Source: this project (docs/results-stories.md). Score: ‖z‖.
Cost: O(n d) for n candidates and d the hidden size.
"""

import torch
from torch import Tensor

from activedpo_cli.base.settings import Section
from activedpo_cli.base.shapes import Float
from activedpo_cli.select.methods.base import Candidates, best_by

NEEDS: tuple[str, ...] = ("mean_hidden",)


class Settings(Section):
    """There is nothing to set."""


def scores(candidates: Candidates, settings: Settings) -> Float[Tensor, " pairs"]:
    """‖z‖ of each pair."""
    return torch.linalg.vector_norm(candidates.differences("mean_hidden"), dim=1)


choose = best_by(scores)
