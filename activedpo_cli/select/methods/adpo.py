"""ADPO: the pairs that add most to the Fisher information of the last layer, D-optimal in frozen features.

v = β √(μ(1 − μ)) z, z being the difference of two responses' last hidden states under π_ref and μ = σ(Δr̂) the current
policy's probability that a is preferred; H = γI + Σ vvᵀ over the pairs labelled so far. B times, the pair with the largest
vᵀH⁻¹v is taken and its vvᵀ added to H.

The published method looks at 256 random candidates a step and refits its linear policy after 1, 2, 4, … labels; here all
candidates are looked at, and Δr̂ = β (log π/π_ref of a − log π/π_ref of b) is the policy's own. At t = 1 μ is ½ for all.

Source: Kveton et al., arXiv 2503.01076. Score: √(vᵀH⁻¹v) when the pair was picked.
Cost: O(n d B + n d s + d B²) for n candidates, d the hidden size, s pairs labelled earlier and budget B.
"""

import torch
from torch import Tensor

from activedpo_cli.base.settings import Positive, Section, setting
from activedpo_cli.base.shapes import Float
from activedpo_cli.select.design.greedy import greedy_uncertainty
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget, seeded_order
from activedpo_cli.statistics.bradley_terry import preference_variance

NEEDS: tuple[str, ...] = ("hidden", "logps", "ref_logps")


class Settings(Section):
    """What the method leaves open."""

    ridge: Positive = setting(1e-3, "γ, in units of β² ‖z‖²/4; the paper gives no value")


def choose(
    candidates: Candidates,
    budget: int,
    settings: Settings,
    generator: torch.Generator,
    max_per_prompt: int | None = None,
) -> Selection:
    """Choose `budget` pairs; raises ValueError where so many can not be taken."""
    check_budget(candidates, budget, max_per_prompt)
    rows, scores = greedy_uncertainty(
        _weighted(candidates.differences("hidden"), candidates.margins(), candidates.beta),
        _weighted(candidates.labelled_differences("hidden"), candidates.labelled_margins(), candidates.beta),
        settings.ridge,
        budget,
        priority=seeded_order(len(candidates), generator),
        groups=candidates.prompt_index,
        max_per_group=max_per_prompt,
    )
    return Selection(rows=rows, scores=scores)


def _weighted(
    differences: Float[Tensor, "pairs hidden_size"], margins: Float[Tensor, " pairs"], beta: float
) -> Float[Tensor, "pairs hidden_size"]:
    """The v of each pair."""
    return differences * (beta * preference_variance(margins).sqrt())[:, None].to(differences)
