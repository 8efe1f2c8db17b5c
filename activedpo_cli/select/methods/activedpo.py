"""ActiveDPO: the pairs whose gradient difference the labels so far cover least.

φ is the difference of two responses' projected gradients, V = λI + Σ φφᵀ over the pairs labelled so far. B times, the
pair with the largest ‖φ‖ in V⁻¹ is taken and its φφᵀ added to V, so that a batch does not repeat itself.

Source: arXiv 2505.19241, algorithm 1, Eqs. (3) and (4). Score: ‖φ‖ in V⁻¹ when the pair was picked.
Cost: O(n d B + n d s + d B²) for n candidates, d features, s pairs labelled earlier and budget B; a d × d matrix only where
d pairs are covered.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from activedpo_cli.base.settings import Positive, Section, setting
from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.pairs.pair_features import Rows
from activedpo_cli.select.design.design import Design
from activedpo_cli.select.design.greedy import (
    Pick,
    PooledChoice,
    PoolSize,
    greedy_uncertainty,
    pooled_greedy,
)
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget, seeded_order

NEEDS: tuple[str, ...] = ("features",)


class Settings(Section):
    """What the method leaves open."""

    ridge: Positive = setting(0.1, "λ: large values ignore redundancy within the batch, small ones penalise it most")


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
        candidates.pair_features(),
        candidates.history(),
        settings.ridge,
        budget,
        priority=seeded_order(len(candidates), generator),
        groups=candidates.prompt_index,
        max_per_group=max_per_prompt,
    )
    return Selection(rows=rows, scores=scores)


def design(labelled_pair_features: Float[Tensor, "labelled proj_dim"], settings: Settings) -> Design:
    """V of pairs by which a choice with these settings begins."""
    return Design(labelled_pair_features, settings.ridge)


def describe(candidates: Candidates, chosen: Selection, settings: Settings) -> dict[str, Any]:
    """What λ and the batch did to V, with which the batch ends."""
    in_v = torch.cat([candidates.history(), candidates.pair_features(chosen.rows)])
    found = asdict(design(in_v, settings).diagnostics())
    first, last = float(chosen.scores[0]), float(chosen.scores[-1])
    shares = {"last_to_first": last / first if first else None}
    return {"design": {"ridge": settings.ridge, "pairs": len(in_v), **found, **shares}}


def choose_streamed(
    pairs: Rows,
    labelled_pair_features: Float[Tensor, "labelled proj_dim"],
    budget: int,
    settings: Settings,
    generator: torch.Generator,
    pool: PoolSize,
    *,
    prompt_index: Int[Tensor, " pairs"] | None = None,
    max_per_prompt: int | None = None,
    picked: Sequence[Pick] = (),
    after_pick: Callable[[Pick], None] | None = None,
) -> PooledChoice:
    """What `choose` chooses, where the candidates do not fit into memory; see `pooled_greedy`."""
    return pooled_greedy(
        pairs,
        labelled_pair_features,
        settings.ridge,
        budget,
        seeded_order(pairs.shape[0], generator),
        pool,
        prompt_index,
        max_per_prompt,
        picked=picked,
        after_pick=after_pick,
    )
