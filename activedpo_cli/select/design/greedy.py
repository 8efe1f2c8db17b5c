"""Greedy choice of the most uncertain pairs among features in memory, without ever forming V."""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.select.design.pooled_greedy import PoolSize, pooled_greedy

POOL = 256
"""Pairs in the first pool: small enough for a cache, large enough for most of a batch."""

CHUNK_BYTES = 2**24
"""Of features in float64 that are read at once."""


def greedy_uncertainty(
    pair_features: Float[Tensor, "pairs proj_dim"],
    labelled_pair_features: Float[Tensor, "labelled proj_dim"],
    ridge: float,
    budget: int,
    priority: Int[Tensor, " pairs"],
    groups: Int[Tensor, " pairs"] | None = None,
    max_per_group: int | None = None,
) -> tuple[Int[Tensor, " chosen"], Float[Tensor, " chosen"]]:
    """Pick `budget` pairs, each the argmax of ‖φ‖ in V⁻¹, where V grows by every pick.

    Lines 5–9 of algorithm 1 with Eqs. (3) and (4), arXiv 2505.19241. V starts as λI + Σ φφᵀ over the labelled pairs.
    Arithmetic is float64 whatever the input.

    Args:
        ridge: λ > 0.
        priority: A permutation; of tied pairs the one with the smallest value is taken.
        groups: Pairs of one prompt share a value; needed with `max_per_group`.
        max_per_group: Most pairs taken of one group.

    Returns:
        The rows picked, in order, and the uncertainty ‖φ‖ in V⁻¹ of each at the moment it was picked.

    Raises:
        ValueError: λ is not positive, the features are not finite, or fewer than `budget` pairs can be taken.

    """
    choice = pooled_greedy(
        RowsInMemory(pair_features),
        labelled_pair_features.to(pair_features.device, torch.float64),
        ridge,
        budget,
        priority.to(pair_features.device),
        pool_in_memory(*pair_features.shape),
        None if groups is None else groups.to(pair_features.device),
        max_per_group,
    )
    return torch.tensor(choice.rows, dtype=torch.int64), torch.tensor(choice.scores, dtype=torch.float64)


def pool_in_memory(pairs: int, proj_dim: int) -> PoolSize:
    """The sizes that are fastest where all pairs are in memory."""
    return PoolSize(first=POOL, most=pairs, chunk=max(1, CHUNK_BYTES // (8 * max(1, proj_dim))))


class RowsInMemory:
    """All pairs as one tensor."""

    def __init__(self, pair_features: Float[Tensor, "pairs proj_dim"]) -> None:
        self._features = pair_features

    @property
    def shape(self) -> tuple[int, int]:
        """Pairs, and features of each."""
        count, proj_dim = self._features.shape
        return count, proj_dim

    def read(self, start: int, stop: int) -> Float[Tensor, "pairs proj_dim"]:
        """Consecutive pairs."""
        return self._features[start:stop]

    def take(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows proj_dim"]:
        """Some pairs."""
        return self._features if len(rows) == len(self._features) else self._features[rows]
