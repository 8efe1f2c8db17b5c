"""The pairs with the longest gradient difference, whatever was chosen or labelled before; a control without V.

What λ → ∞ makes of `activedpo`: what that method gains over this one, it gains by V. Under `select.normalise: pair` all
norms are equal, and the choice is random.

Source: the first pick of arXiv 2505.19241, Eq. (3) with V = λI, for the whole batch. Score: ‖φ‖.
Cost: O(n d) for n candidates and d features.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from activedpo_cli.base.settings import Section
from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.pairs.pair_features import Rows
from activedpo_cli.select.design.greedy import Pick, PooledChoice, PoolSize
from activedpo_cli.select.methods.base import Candidates, best_by, seeded_order, take_in_order
from activedpo_cli.select.scores.ranking import ranked

NEEDS: tuple[str, ...] = ("features",)


class Settings(Section):
    """There is nothing to set."""


def scores(candidates: Candidates, settings: Settings) -> Float[Tensor, " pairs"]:
    """‖φ‖ of each pair."""
    return torch.linalg.vector_norm(candidates.pair_features(), dim=1)


choose = best_by(scores)


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
    """What `choose` chooses, in one pass over the pairs; an interrupted choice begins anew."""
    count = pairs.shape[0]
    norms = torch.empty(count, dtype=torch.float64)
    for start in range(0, count, pool.chunk):
        stop = min(start + pool.chunk, count)
        norms[start:stop] = torch.linalg.vector_norm(pairs.read(start, stop).double(), dim=1)
    order = ranked(norms, seeded_order(count, generator))
    rows = take_in_order(order, torch.arange(count) if prompt_index is None else prompt_index, budget, max_per_prompt)
    return PooledChoice([Pick(row, float(norms[row])) for row in rows.tolist()], passes=1)
