"""APO on a shared pool: the pairs that frozen last-token features of the labels so far cover least.

z is the difference of two responses' last hidden states under π_ref at their last token, V = λI + Σ zzᵀ over the pairs
labelled so far. As published, the B pairs with the largest ‖z‖ in V⁻¹ are taken all at once, however alike they are;
`greedy` adds each pick's zzᵀ to V before the next. `weighted` is the form of the theory, H = λI + Σ σ′(z·ŵ) zzᵀ, which the
published code leaves out: ŵ is the linear Bradley–Terry reward of the labels, with λ/2 ‖ŵ‖² as penalty. With both, a pick
enters H as σ′zzᵀ too, and the score is √σ′ ‖z‖ in H⁻¹, so that log det H grows most. With far fewer labels than hidden
dimensions a small λ lets the fit become certain and its weights nearly zero.

The published method regenerates nothing; here the pool is as *generate* made it.

Source: Das et al., arXiv 2402.10500. Score: ‖z‖ in V⁻¹, when the pair was picked if `greedy`.
Cost: O(n d s + d s²) for n candidates, d the hidden size and s pairs labelled earlier; `greedy` adds O(n d B).
"""

import torch
from torch import Tensor

from activedpo_cli.base.settings import Positive, Section, setting
from activedpo_cli.base.shapes import Float
from activedpo_cli.select.design.design import Design
from activedpo_cli.select.design.greedy import greedy_uncertainty
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget, seeded_order, take_in_order
from activedpo_cli.select.scores.ranking import ranked
from activedpo_cli.statistics.bradley_terry import fit_bradley_terry, preference_variance

NEEDS: tuple[str, ...] = ("hidden",)


class Settings(Section):
    """The published form and its two variants."""

    ridge: Positive = setting(1e-5, "λ, in units of ‖z‖² (published code: 1e-5)")
    greedy: bool = setting(False, "update V after every pick; as published, the batch is taken at once")
    weighted: bool = setting(False, "weigh zzᵀ by σ′, the variance of the answer under a reward fitted to the labels")


def choose(
    candidates: Candidates,
    budget: int,
    settings: Settings,
    generator: torch.Generator,
    max_per_prompt: int | None = None,
) -> Selection:
    """Choose `budget` pairs; raises ValueError where so many can not be taken."""
    check_budget(candidates, budget, max_per_prompt)
    differences, labelled = candidates.differences("hidden"), candidates.labelled_differences("hidden")
    shuffled = seeded_order(len(candidates), generator)
    scales, labelled_scales = _scales(candidates, differences, labelled, settings)
    labelled = labelled * labelled_scales[:, None]
    if settings.greedy:
        rows, scores = greedy_uncertainty(
            differences * scales[:, None],
            labelled,
            settings.ridge,
            budget,
            priority=shuffled.argsort(),
            groups=candidates.prompt_index,
            max_per_group=max_per_prompt,
        )
        return Selection(rows=rows, scores=scores)
    scores = Design(labelled, settings.ridge).norms(differences).cpu()
    rows = take_in_order(ranked(scores, shuffled), candidates.prompt_index, budget, max_per_prompt)
    return Selection(rows=rows, scores=scores[rows])


def _scales(
    candidates: Candidates,
    differences: Float[Tensor, "pairs hidden_size"],
    labelled: Float[Tensor, "labelled hidden_size"],
    settings: Settings,
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " labelled"]]:
    """√σ′ of candidates and labelled pairs if `weighted`, else ones."""
    if not settings.weighted:
        return differences.new_ones(len(differences)), labelled.new_ones(len(labelled))
    if candidates.labelled is None:
        reward = differences.new_zeros(differences.shape[1])
    else:
        reward = fit_bradley_terry(labelled, candidates.labelled.preferred, settings.ridge)
    return preference_variance(differences @ reward).sqrt(), preference_variance(labelled @ reward).sqrt()
