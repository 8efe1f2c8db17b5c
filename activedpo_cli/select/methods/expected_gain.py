"""The pairs whose answer, trained on, is expected to raise the reward most: a first-order look ahead.

One step of DPO on pair i moves the policy along s_i φ_i, where s_i = ±1 is the answer. The mean reward of the pool's
responses changes along G = (1/n) Σ m_j φ_j, the policy gradient with m_j the reward gap of pair j. So a pair is worth
E[s_i] φ_i·G. The gaps are those of a linear Bradley–Terry reward fitted to the labels so far on π_ref's mean-pooled last
hidden states (`reward-gap`), and E[s_i] = 2 σ(m_i) − 1. Gradients of other prompts are nearly at right angles, so this is
close to m tanh(m/2) ‖φ‖² where nothing is shared between prompts, m being the gap of the best fit. Before the first label
‖φ‖ alone.

Source: this project (docs/results-stories.md); influence of an example, Pruthi et al., arXiv 2002.08484.
Score: E[s_i] φ_i·G.
Cost: O(n d + n h s + h s²) for n candidates, d features, h the hidden size and s pairs labelled earlier.
"""

import torch
from torch import Tensor

from activedpo_cli.base.settings import Positive, Section, setting
from activedpo_cli.base.shapes import Float
from activedpo_cli.select.methods.base import Candidates, best_by, gaps_by_labels

NEEDS: tuple[str, ...] = ("features", "mean_hidden")


class Settings(Section):
    """The reward that looks ahead."""

    l2: Positive = setting(1.0, "precision of the prior: before the first label a typical pair's gap has variance 1/l2")


def scores(candidates: Candidates, settings: Settings) -> Float[Tensor, " pairs"]:
    """E[s] φ·G of each pair, or ‖φ‖ before the first label."""
    features = candidates.pair_features()
    found = gaps_by_labels(candidates, settings.l2)
    if found is None:
        return torch.linalg.vector_norm(features, dim=1)
    gaps = found.mean.to(features.device)
    direction = gaps @ features / len(gaps)
    return torch.tanh(gaps / 2) * (features @ direction)  # 2 σ(m) − 1 = tanh(m / 2)


choose = best_by(scores)
