"""BAL-PM: what an ensemble disagrees about, of prompts in thinly labelled regions: `bald` with the entropy of prompts.

A prompt's point is the mean of its responses' states, each averaged over the response's tokens, of all that are in
candidates; every coordinate is then standardised over the candidates' prompts. D_k is the distance to the k-th nearest
other prompt, n the number of pairs labelled earlier or taken now whose point lies within D_k, dim the width of a state, and

    Ĥ(x) = log(2 D_k + 1e-4) − ψ(n + 1)/dim.

B times, the pair with the largest BALD + `entropy_weight` · Ĥ(x) is taken, BALD as in `bald`, and n counted anew. States
and not gradients: the mean of a prompt's gradients is zero but for chance, whatever the prompt, and states of π_ref stay the
same from one iteration to the next. A labelled pair's point is the mean of its own two responses. The published heads are
small networks on frozen features, and its points are states of the prompt alone, which no stage computes.

Source: Melo et al., arXiv 2406.10023. Score: BALD + entropy_weight · Ĥ(x) when the pair was taken, in nats; may be negative.
Cost: that of `bald`, and O(P² h + B P h + B n) for P prompts, h the hidden size and n candidates.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor

from activedpo_cli.base.settings import NonNegative, Positive, Section, setting
from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.select.methods import bald
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget, seeded_order
from activedpo_cli.select.scores.entropy import (
    exact_distances,
    neighbour_distances,
    neighbour_entropy,
    standardised_columns,
    within,
)
from activedpo_cli.select.scores.ranking import TIE_TOLERANCE, OpenRows

NEEDS: tuple[str, ...] = ("features", "mean_hidden")


class Settings(Section):
    """The ensemble, as in `bald`, and the entropy of prompts."""

    heads: PositiveInt = setting(10, "K, heads of the ensemble (published: 5)")
    l2: Positive = setting(1.0, "precision of the heads' prior, as in `bald`")
    entropy_weight: NonNegative = setting(
        0.01, "what one nat of the prompts' entropy adds to the score (published: 0.01)"
    )
    neighbours: PositiveInt = setting(13, "k, the neighbour whose distance counts (published: 13)")


def choose(
    candidates: Candidates,
    budget: int,
    settings: Settings,
    generator: torch.Generator,
    max_per_prompt: int | None = None,
) -> Selection:
    """Choose `budget` pairs; raises ValueError where so many can not be taken."""
    check_budget(candidates, budget, max_per_prompt)
    information = bald.disagreement(candidates, bald.Settings(heads=settings.heads, l2=settings.l2), generator)
    prompts, prompt_of_pair = candidates.prompt_index.unique(return_inverse=True)
    points, labelled = standardised_columns(
        _points(candidates, prompt_of_pair, len(prompts)), _labelled_points(candidates)
    )
    radius = neighbour_distances(points, settings.neighbours)
    count = within(exact_distances(points, labelled), radius).sum(dim=1)
    priority = seeded_order(len(candidates), generator)
    open_rows = OpenRows(len(candidates), candidates.prompt_index, max_per_prompt)
    rows: list[int] = []
    scores: list[float] = []
    for _ in range(budget):
        entropies = neighbour_entropy(radius, count, points.shape[1])[prompt_of_pair]
        worth = information + settings.entropy_weight * entropies
        row = _best(worth.masked_fill(~open_rows.mask, -torch.inf), priority)
        rows.append(row)
        scores.append(float(worth[row]))
        open_rows.take(row)
        taken = points[prompt_of_pair[row]][None]
        count += within(exact_distances(points, taken), radius)[:, 0]
    return Selection(rows=torch.tensor(rows), scores=torch.tensor(scores, dtype=torch.float64))


def _best(worth: Float[Tensor, " pairs"], priority: Int[Tensor, " pairs"]) -> int:
    best = worth.max()
    tied = worth >= best - TIE_TOLERANCE * best.abs()
    return int(priority.where(tied, len(priority)).argmin())


def _points(
    candidates: Candidates, prompt_of_pair: Int[Tensor, " pairs"], prompts: int
) -> Float[Tensor, "prompts dim"]:
    """The mean state of each prompt's different responses."""
    both = torch.stack([prompt_of_pair.repeat(2), torch.cat([candidates.row_a, candidates.row_b])]).unique(dim=1)
    states = candidates.column("mean_hidden").to("cpu", torch.float64)
    sums = torch.zeros(prompts, states.shape[1], dtype=torch.float64).index_add_(0, both[0], states[both[1]])
    return sums / both[0].bincount(minlength=prompts)[:, None]


def _labelled_points(candidates: Candidates) -> Float[Tensor, "labelled dim"]:
    if candidates.labelled is None:
        return torch.zeros(0, candidates.column("mean_hidden").shape[1], dtype=torch.float64)
    states = candidates.labelled.column("mean_hidden").to("cpu", torch.float64)
    return (states[candidates.labelled.row_a] + states[candidates.labelled.row_b]) / 2
