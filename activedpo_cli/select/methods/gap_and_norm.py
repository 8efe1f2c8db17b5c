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
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget, gaps_by_labels, take_best
from activedpo_cli.select.scores.ranking import standardised

NEEDS: tuple[str, ...] = ("features", "mean_hidden")


class Settings(Section):
    """The reward, and the weight of the norm beside it."""

    l2: Positive = setting(1.0, "precision of the prior: before the first label a typical pair's gap has variance 1/l2")
    norm_weight: NonNegative = setting(1.0, "what one standard deviation of ‖φ‖² adds to one of the |gap|")


def choose(
    candidates: Candidates,
    budget: int,
    settings: Settings,
    generator: torch.Generator,
    max_per_prompt: int | None = None,
) -> Selection:
    """Choose `budget` pairs; raises ValueError where so many can not be taken."""
    check_budget(candidates, budget, max_per_prompt)
    scores = _worth(candidates, settings)
    return take_best(candidates, scores, budget, generator, max_per_prompt)


def _worth(candidates: Candidates, settings: Settings) -> Float[Tensor, " pairs"]:
    norms = torch.linalg.vector_norm(candidates.pair_features(), dim=1)
    gaps = gaps_by_labels(candidates, settings.l2)
    if gaps is None:
        return norms
    return standardised(gaps.mean.abs()) + settings.norm_weight * standardised(norms.square())
