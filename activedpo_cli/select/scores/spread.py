"""Pairs spread out over the space of φ, where (a, b) and (b, a) are one and the same pair.

The distance of two pairs is therefore min(‖φ − φ′‖, ‖φ + φ′‖), whose square is ‖φ‖² + ‖φ′‖² − 2 |φ·φ′|.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.select.scores.ranking import TIE_TOLERANCE, OpenRows

ROUNDING = 1e-13
"""Squared distances below this share of ‖φ‖² + ‖φ′‖² are rounding errors, hence zero."""

CENTRES_AT_ONCE = 64


def squared_distances(
    pair_features: Float[Tensor, "pairs proj_dim"], centres: Float[Tensor, "centres proj_dim"]
) -> Float[Tensor, "pairs centres"]:
    """Squared distance of every pair from every centre, whatever their signs; exactly zero for equal pairs."""
    return _squared_distances(pair_features, _squared_norms(pair_features), centres)


def farthest_first(
    pair_features: Float[Tensor, "pairs proj_dim"],
    labelled_pair_features: Float[Tensor, "labelled proj_dim"],
    budget: int,
    priority: Int[Tensor, " pairs"],
    groups: Int[Tensor, " pairs"] | None = None,
    max_per_group: int | None = None,
) -> tuple[Int[Tensor, " chosen"], Float[Tensor, " chosen"]]:
    """Take `budget` pairs, each the farthest from all labelled pairs and those taken before.

    Gonzalez's algorithm for k centres, in float64. Where nothing is labelled the first is the one with the largest ‖φ‖.

    Args:
        pair_features: φ of the pairs that can be taken.
        labelled_pair_features: φ of the centres that there are already.
        budget: Number of pairs.
        priority: A permutation; of tied pairs the one with the smallest value is taken.
        groups: Pairs of one prompt share a value; needed with `max_per_group`.
        max_per_group: Most pairs taken of one group.

    Returns:
        The rows taken, in order, and the distance of each from its nearest centre then.

    Raises:
        ValueError: The features are not finite, or fewer than `budget` pairs can be taken.

    """
    open_rows = OpenRows(len(priority), groups, max_per_group)
    return _take(pair_features, labelled_pair_features, budget, partial(_farthest, priority), open_rows)


def sample_by_distance(
    pair_features: Float[Tensor, "pairs proj_dim"],
    labelled_pair_features: Float[Tensor, "labelled proj_dim"],
    budget: int,
    generator: torch.Generator,
    groups: Int[Tensor, " pairs"] | None = None,
    max_per_group: int | None = None,
) -> tuple[Int[Tensor, " chosen"], Float[Tensor, " chosen"]]:
    """Draw `budget` pairs, each with probability ∝ its squared distance from the nearest centre: k-means++ seeding.

    Arguments, result and errors are those of `farthest_first`. Where nothing is labelled the first is drawn ∝ ‖φ‖², and
    evenly where no pair is away from all centres.
    """
    open_rows = OpenRows(len(pair_features), groups, max_per_group)
    return _take(pair_features, labelled_pair_features, budget, partial(_drawn, generator), open_rows)


def _farthest(priority: Int[Tensor, " pairs"], squared: Float[Tensor, " pairs"]) -> int:
    tied = squared >= squared.max() * (1 - TIE_TOLERANCE)
    return int(priority.where(tied, len(priority)).argmin())


def _drawn(generator: torch.Generator, squared: Float[Tensor, " pairs"]) -> int:
    weights = squared.clamp_min(0)
    if not weights.any():
        weights = (squared >= 0).to(squared)
    cumulative = weights.cumsum(dim=0)
    uniform = torch.rand(1, generator=generator, device=generator.device, dtype=torch.float64).cpu()
    row = int(torch.searchsorted(cumulative, uniform * cumulative[-1], right=True))
    return min(row, int(weights.nonzero()[-1]))  # uniform · sum can be rounded up to the sum


def _take(
    pair_features: Float[Tensor, "pairs proj_dim"],
    labelled_pair_features: Float[Tensor, "labelled proj_dim"],
    budget: int,
    pick: Callable[[Tensor], int],
    open_rows: OpenRows,
) -> tuple[Int[Tensor, " chosen"], Float[Tensor, " chosen"]]:
    """`pick` gets the squared distances from the nearest centre, −1 for rows that can't be taken."""
    features = pair_features.to(torch.float64)
    norms = _squared_norms(features)
    nearest = _nearest(features, norms, labelled_pair_features.to(features))
    rows: list[int] = []
    scores: list[float] = []
    for _ in range(budget):
        if not open_rows.mask.any():
            raise ValueError("fewer pairs can be taken than the budget asks for")
        squared = (nearest if nearest is not None else norms).cpu()
        row = pick(squared.where(open_rows.mask, -1.0))
        rows.append(row)
        scores.append(float(squared[row].sqrt()))
        open_rows.take(row)
        distances = _squared_distances(features, norms, features[row : row + 1]).flatten()
        nearest = distances if nearest is None else torch.minimum(nearest, distances)
    return torch.tensor(rows, dtype=torch.int64), torch.tensor(scores, dtype=torch.float64)


def _nearest(
    features: Float[Tensor, "pairs proj_dim"],
    norms: Float[Tensor, " pairs"],
    centres: Float[Tensor, "centres proj_dim"],
) -> Float[Tensor, " pairs"] | None:
    nearest = None
    for some in centres.split(CENTRES_AT_ONCE) if len(centres) else ():
        distances = _squared_distances(features, norms, some).amin(dim=1)
        nearest = distances if nearest is None else torch.minimum(nearest, distances)
    return nearest


def _squared_norms(features: Float[Tensor, "rows proj_dim"]) -> Float[Tensor, " rows"]:
    norms = torch.linalg.vector_norm(features, dim=1).square()
    if not norms.isfinite().all():
        raise ValueError("pair features are not finite")
    return norms


def _squared_distances(
    features: Float[Tensor, "pairs proj_dim"],
    norms: Float[Tensor, " pairs"],
    centres: Float[Tensor, "centres proj_dim"],
) -> Float[Tensor, "pairs centres"]:
    sums = norms[:, None] + _squared_norms(centres)
    squared = sums - 2 * (features @ centres.T).abs()
    return squared.where(squared > ROUNDING * sums, 0.0)
