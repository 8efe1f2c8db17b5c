"""ActiveDPO's norm plus the reward gap: pairs that are far apart in gradient and, by the labels so far, in reward.

‖φ‖² of the projected gradients' difference, without V, and the |gap| of a linear Bradley–Terry reward fitted to the labels
so far on π_ref's mean-pooled last hidden states (`reward-gap`), both in units of their spread over the candidates. Before
the first label ‖φ‖ alone.

Source: this project (docs/results-stories.md), from arXiv 2505.19241, Eq. (3).
Score: the sum, or ‖φ‖ before the first label.
Cost: O(n d + n h s + h s²) for n candidates, d features, h the hidden size and s pairs labelled earlier.
"""

import torch
from torch import Tensor

from activedpo_cli.base.settings import NonNegative, Positive, Section, setting
from activedpo_cli.base.shapes import Float
from activedpo_cli.select.methods.base import Candidates, best_by, gaps_by_labels
from activedpo_cli.select.scores.ranking import standardised

NEEDS: tuple[str, ...] = ("features", "mean_hidden")


class Settings(Section):
    """The reward, and the weight of the norm beside it."""

    l2: Positive = setting(1.0, "precision of the prior: before the first label a typical pair's gap has variance 1/l2")
    norm_weight: NonNegative = setting(1.0, "what one standard deviation of ‖φ‖² adds to one of the |gap|")


def scores(candidates: Candidates, settings: Settings) -> Float[Tensor, " pairs"]:
    """What gap and norm come to together, or ‖φ‖ before the first label."""
    norms = torch.linalg.vector_norm(candidates.pair_features(), dim=1)
    gaps = gaps_by_labels(candidates, settings.l2)
    if gaps is None:
        return norms
    return standardised(gaps.mean.abs()) + settings.norm_weight * standardised(norms.square())


choose = best_by(scores)
