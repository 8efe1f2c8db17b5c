"""APLP on a shared pool: of the prompts with the highest entropy, the pairs of whose order the policy is most certain.

Prompts are kept by falling Ĥ(x) = −(1/m) Σ log π(y|x), over their m samples in candidates, copies included, until their
pairs could fill `over_generate` batches; of these pairs the largest |Δr̂| are taken, Δr̂ = β (log π/π_ref of a − log π/π_ref
of b). A pool of fewer pairs is kept whole, which is `aplp-certainty`. At t = 1 all margins are zero and the pairs of kept
prompts are taken in a seeded order.

The published method samples anew: 8 responses at temperature 1 to 64 B prompts for Ĥ, and for the 16 B prompts kept one
pair at temperature 0.7. Here both scores are of the responses that there are; how those are sampled are settings of
*generate* (`num_prompts`, `num_responses`, `temperature`), and Ĥ is an entropy at temperature 1 only.

Source: Muldrew et al., arXiv 2402.08114, entropy and certainty together. Score: |Δr̂| in nats.
Cost: O(n log n) for n candidates.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor

from activedpo_cli.base.settings import Section, setting
from activedpo_cli.base.shapes import Bool
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget, seeded_order, take_in_order
from activedpo_cli.select.scores.ranking import grouped, ranked

NEEDS: tuple[str, ...] = ("logps", "ref_logps")


class Settings(Section):
    """How far entropy decides."""

    over_generate: PositiveInt = setting(
        16,
        "keep the prompts of highest entropy that could fill so many batches (TL;DR: 16, IMDB: 32); 1: entropy alone",
    )


def choose(
    candidates: Candidates,
    budget: int,
    settings: Settings,
    generator: torch.Generator,
    max_per_prompt: int | None = None,
) -> Selection:
    """Choose `budget` pairs; raises ValueError where so many can not be taken."""
    check_budget(candidates, budget, max_per_prompt)
    kept = _of_undecided_prompts(candidates, settings.over_generate * budget, generator, max_per_prompt)
    certainty = candidates.margins().abs().cpu()
    order = ranked(certainty, seeded_order(len(candidates), generator))
    order = torch.cat([order[kept[order]], order[~kept[order]]])
    rows = take_in_order(order, candidates.prompt_index, budget, max_per_prompt)
    return Selection(rows=rows, scores=certainty[rows])


def note(candidates: Candidates, budget: int, settings: Settings) -> str | None:
    """Says where entropy decides nothing."""
    batches, pairs = settings.over_generate, len(candidates)
    if batches * budget < pairs:
        return None
    return (
        f"keeps all prompts, since {batches} batches of {budget} are no fewer than the {pairs} candidates: only the second "
        "of its scores decides, that of `aplp-certainty`"
    )


def _of_undecided_prompts(
    candidates: Candidates, wanted: int, generator: torch.Generator, max_per_prompt: int | None
) -> Bool[Tensor, " pairs"]:
    """Whether a pair's prompt is among the fewest of highest entropy that could give `wanted` pairs."""
    pairs_of_prompt = candidates.prompt_index
    by_entropy = ranked(
        candidates.prompt_entropies(), grouped(seeded_order(len(candidates), generator), pairs_of_prompt)
    )
    within_limit = take_in_order(by_entropy, pairs_of_prompt, wanted, max_per_prompt)
    return torch.isin(pairs_of_prompt, pairs_of_prompt[within_limit])
