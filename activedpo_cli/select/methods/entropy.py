"""Pairs of the prompts about which the policy is least decided, the first half of `aplp` alone.

Ĥ(x) = −(1/m) Σ log π(y|x) over the prompt's samples whose text is in candidates, copies included, summed over tokens. It
estimates the entropy of π(·|x) if they were sampled at temperature 1 (`generate.temperature`, `top_k` and `top_p` at their
defaults), too high for nearly decided prompts, which are candidates only when samples differ; long responses have more of
it. All pairs of a prompt are taken before the next prompt's, in a seeded order, unless
`select.max_per_prompt` says otherwise.

Source: Muldrew et al., arXiv 2402.08114, its entropy score. Score: Ĥ(x) in nats. Cost: O(n log n) for n candidates.
"""

import torch

from activedpo_cli.base.settings import Section
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget, seeded_order, take_in_order
from activedpo_cli.select.scores.ranking import grouped, ranked

NEEDS: tuple[str, ...] = ("logps",)


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
    prompt_index = candidates.prompt_index
    entropies = candidates.prompt_entropies()
    shuffled = grouped(seeded_order(len(candidates), generator), prompt_index)
    rows = take_in_order(ranked(entropies, shuffled), prompt_index, budget, max_per_prompt)
    return Selection(rows=rows, scores=entropies[rows])
