"""The pairs whose rewards differ most by a linear reward of the labels so far, on frozen mean-pooled states; no gradient.

z is the difference of two responses' last hidden states under π_ref, each averaged over the response's tokens. A linear
Bradley–Terry reward w is fitted to the labels bought so far, with prior N(0, I/l2). A pair's worth is the size of its gap
that this reward expects: |z·w|, or with `expected` the mean of |z·w| over the Laplace posterior, which counts what is not
known about w too. `norm_weight` adds that multiple of ‖z‖², both in units of their spread over the candidates. Before the
first label the worth is ‖z‖, what the expected gap is proportional to.

An answer about two responses of clearly different reward is one that a noisy oracle gives right, and that moves the policy
along what the reward measures; what small gaps teach is mostly noise.

Source: this project (docs/results-stories.md); reward on frozen states after Das et al., arXiv 2402.10500. Score: as above.
Cost: O(n d s + d s²) for n candidates, d the hidden size and s pairs labelled earlier; one forward pass a response.
"""

import torch
from torch import Tensor

from activedpo_cli.base.settings import NonNegative, Positive, Section, setting
from activedpo_cli.base.shapes import Float
from activedpo_cli.select.methods.base import Candidates, best_by, gaps_by_labels
from activedpo_cli.select.scores.ranking import standardised

NEEDS: tuple[str, ...] = ("mean_hidden",)


class Settings(Section):
    """The reward, and what counts beside its gap."""

    l2: Positive = setting(1.0, "precision of the prior: before the first label a typical pair's gap has variance 1/l2")
    expected: bool = setting(False, "take the mean of |gap| over the posterior, not the |gap| of the best fit")
    norm_weight: NonNegative = setting(0.0, "what one standard deviation of ‖z‖² adds to the score")


def scores(candidates: Candidates, settings: Settings) -> Float[Tensor, " pairs"]:
    """The size of each pair's gap, with its norm where that has a weight; ‖z‖ before the first label."""
    norms = torch.linalg.vector_norm(candidates.differences("mean_hidden"), dim=1)
    gaps = gaps_by_labels(candidates, settings.l2)
    if gaps is None:
        return norms
    size = gaps.expected_size() if settings.expected else gaps.mean.abs()
    if settings.norm_weight == 0:
        return size
    return standardised(size) + settings.norm_weight * standardised(norms.square())


choose = best_by(scores)
