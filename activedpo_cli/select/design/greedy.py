"""Greedy choice of the most uncertain pairs: exact, although after a pick only a small pool is computed anew.

What is left of a pair, λφᵀV⁻¹φ, only shrinks. So what was left when all pairs were last read bounds what is left now, and
while the best of a small pool is above that bound for all others, nobody else needs to be looked at.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Bool, Float, Int
from activedpo_cli.pairs.pair_features import Rows, RowsInMemory
from activedpo_cli.select.design.design import PRECISE, Design
from activedpo_cli.select.design.pool import Pool

POOL = 256
"""Pairs in the first pool where all are in memory: small enough for a cache, large enough for most of a batch."""

CHUNK_BYTES = 2**24
"""Of features in float64 that are read at once where all are in memory."""

TIE_TOLERANCE = 1e-9
"""Two pairs count as tied where what is left of them differs by less than this share."""

SAME = 1e-6
"""A repeated pick must have its recorded score to within this share; otherwise the choice is not the interrupted one."""

SHARE_OF_POOL = 3
SHARE_OF_CHUNK = 8
"""The pool takes a third of the memory for features, a chunk an eighth.

The rest is for the chunk's responses, for copies, and for products of the pool's pairs.
"""

AT_FIRST = 4
AT_A_TIME = 256
"""How many exact values are computed in one step: AT_FIRST to begin with, never more than AT_A_TIME.

The first few mostly show already that no other pair has as much left.
"""


@dataclass(frozen=True)
class PoolSize:
    """How many pairs are held: at first, and at most, the pool doubling whenever all pairs had to be read again."""

    first: int
    most: int
    chunk: int
    """Pairs read at once."""

    @classmethod
    def within(cls, memory: int, pairs: int, proj_dim: int) -> "PoolSize":
        """As many as `memory` bytes hold, less what reading and sorting them takes."""
        bytes_per_pair = 8 * max(1, proj_dim)
        held = min(pairs, max(1, memory // SHARE_OF_POOL // bytes_per_pair))
        return cls(first=held, most=held, chunk=max(1, memory // SHARE_OF_CHUNK // bytes_per_pair))

    @classmethod
    def in_memory(cls, pairs: int, proj_dim: int) -> "PoolSize":
        """The sizes that are fastest where all pairs are in memory."""
        return cls(first=POOL, most=pairs, chunk=max(1, CHUNK_BYTES // (8 * max(1, proj_dim))))


@dataclass(frozen=True)
class Pick:
    """A row, its score when it was picked, and whether that was computed exactly; these repeat the pick to the last bit."""

    row: int
    score: float
    exactly: bool = False


@dataclass
class PooledChoice:
    """The picks in order, and how often all pairs were read for them."""

    picks: list[Pick] = field(default_factory=list)
    passes: int = 0

    @property
    def rows(self) -> list[int]:
        """The rows picked."""
        return [pick.row for pick in self.picks]

    @property
    def scores(self) -> list[float]:
        """The uncertainty ‖φ‖ in V⁻¹ of each when it was picked."""
        return [pick.score for pick in self.picks]


class UnrepeatableError(ValueError):
    """The picks with which a choice is to begin are not those of an interrupted choice among these pairs."""


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
        PoolSize.in_memory(*pair_features.shape),
        None if groups is None else groups.to(pair_features.device),
        max_per_group,
    )
    return torch.tensor(choice.rows, dtype=torch.int64), torch.tensor(choice.scores, dtype=torch.float64)


def pooled_greedy(
    candidates: Rows,
    labelled: Float[Tensor, "labelled proj_dim"],
    ridge: float,
    budget: int,
    priority: Int[Tensor, " pairs"],
    pool: PoolSize,
    groups: Int[Tensor, " pairs"] | None = None,
    max_per_group: int | None = None,
    *,
    picked: Sequence[Pick] = (),
    after_pick: Callable[[Pick], None] | None = None,
) -> PooledChoice:
    """Pick `budget` pairs as `greedy_uncertainty` does, reading all of them as seldom as possible.

    Args:
        picked: Picks of an interrupted choice, which goes on after them; on a CPU it ends with the very scores of a choice
            without interruption.
        after_pick: Called with every further pick; without it scores are computed for many picks at once, which is faster.

    Raises:
        UnrepeatableError: `picked` can not have been picked among these pairs.
        ValueError: as `greedy_uncertainty`.

    """
    search = _Search(candidates, Design(labelled, ridge, budget), priority, pool, groups, max_per_group)
    for pick in picked[:budget]:
        search.repeat(pick)
    while search.count < budget:
        search.pick()
        if after_pick is not None:
            after_pick(search.last())
    return PooledChoice(search.picks(), search.passes)


class _Search:
    """The state between two picks: some numbers of every pair, and the features of those in the pool."""

    def __init__(
        self,
        candidates: Rows,
        design: Design,
        priority: Int[Tensor, " pairs"],
        pool: PoolSize,
        groups: Int[Tensor, " pairs"] | None,
        max_per_group: int | None,
    ) -> None:
        count, proj_dim = candidates.shape
        self._candidates, self._design, self._size = candidates, design, pool
        self._priority, self._groups, self._max_per_group = priority, groups, max_per_group
        device = priority.device
        self._is_open = torch.ones(count, dtype=torch.bool, device=device)
        self._left = torch.empty(count, dtype=torch.float64, device=device)
        """‖φ‖² − ‖Wφ‖², up to `_slack`. It is current for the pairs of the pool, and of the last reading for all others."""
        self._exact = torch.full_like(self._left, torch.inf)
        """What was left when it was last computed exactly; since then it can only have become less."""
        self._exact_at = torch.full((count,), -1, dtype=torch.int32, device=device)
        """How many pairs had been taken when that was computed."""
        self._slack = torch.zeros_like(self._left)
        self._no_pool = Pool(self._priority[:0], self._left.new_empty(0, proj_dim), 0)
        self._pool = self._no_pool
        self._is_in_pool = torch.zeros_like(self._is_open)
        self._pool_size = pool.first
        self._chunk: Tensor | None = None
        self._applied = 0
        """Picks in what is known of all pairs."""
        self._rows: list[int] = []
        self.passes = 0

    @property
    def count(self) -> int:
        """Pairs taken so far."""
        return len(self._rows)

    def picks(self) -> list[Pick]:
        """All pairs taken so far."""
        return [self._described(row, *left) for row, left in zip(self._rows, self._design.lefts(), strict=True)]

    def last(self) -> Pick:
        """The pair taken last."""
        return self._described(self._rows[-1], *self._design.lefts()[-1])

    def _described(self, row: int, left: float, exactly: bool) -> Pick:
        return Pick(row, math.sqrt(left / self._design.ridge), exactly)

    def pick(self) -> None:
        """Take the pair of which the most is left."""
        if not self._is_open.any():
            raise ValueError("fewer pairs can be taken than the budget asks for")
        if not self.passes:
            self._read_all()
        contenders = self._contenders()
        if self._is_stale and not self._is_in_pool[contenders].all():
            self._read_all()
            contenders = self._contenders()
        left = self._left[contenders]
        vague = self._slack[contenders] > PRECISE * left
        if vague.any():
            left[vague] = self._exactly(contenders[vague])
        tied = contenders[left >= left.max() * (1 - TIE_TOLERANCE)]
        self._take(int(tied[int(self._priority[tied].argmin())]))

    def repeat(self, pick: Pick) -> None:
        """Take a pair that an interrupted choice took."""
        if not 0 <= pick.row < len(self._left):
            raise UnrepeatableError(f"row {pick.row} is none of {len(self._left)} pairs")
        if not self._is_open[pick.row]:
            raise UnrepeatableError(f"row {pick.row} can not be taken any more")
        self._take(pick.row, exactly=pick.exactly)
        score = self.last().score
        if not abs(score - pick.score) <= SAME * max(score, pick.score):
            raise UnrepeatableError(f"row {pick.row} has the score {score}, not {pick.score}")

    @property
    def _is_stale(self) -> bool:
        return self._applied < self._design.count

    def _take(self, row: int, exactly: bool | None = None) -> None:
        pool, left, place = self._pool.rows, float(self._left[row]), None
        if self._is_in_pool[row]:
            place = int(torch.searchsorted(pool, row))
            feature = self._pool.features[place]
        else:
            feature = self._candidates.take(torch.tensor([row], device=pool.device)).to(self._left)[0]
        self._is_open[row] = False
        self._rows.append(row)
        if self._groups is not None and self._max_per_group is not None:
            members = self._groups == self._groups[row]
            if int(members[self._rows].sum()) >= self._max_per_group:
                self._is_open[members] = False
        self._design.add(feature, float(self._slack[row]), exactly, about=left)
        if len(pool):
            open_left = self._left[pool].where(self._is_open[pool], -1.0)
            covered = self._pool.covered_by_pick(place, feature, open_left, left, self._design)
            self._left[pool] = (self._left[pool] - covered).clamp_min_(0)

    def _contenders(self) -> Int[Tensor, " contenders"]:
        """The open pairs that may have the most left; there is always at least one."""
        floor = self._floor()
        return (self._upper() >= floor * (1 - TIE_TOLERANCE)).nonzero().flatten()

    def _upper(self) -> Float[Tensor, " pairs"]:
        return torch.minimum(self._left + self._slack, self._exact * (1 + PRECISE)).where(self._is_open, -1.0)

    def _floor(self) -> float:
        """A lower bound of the most that is left of any open pair."""
        is_current = self._is_open & self._is_in_pool if self._is_stale else self._is_open
        if not is_current.any():
            return 0.0
        best = int(self._left.where(is_current, -1.0).argmax())
        if self._slack[best] <= PRECISE * self._left[best]:
            return float(self._left[best] - self._slack[best])
        return self._floor_by_looking(is_current)

    def _floor_by_looking(self, is_current: Bool[Tensor, " pairs"]) -> float:
        """The same by exact values, computed for more and more pairs as long as too many others may have as much left."""
        looked, unknown = AT_FIRST, is_current & (self._exact_at < self._design.count)
        while True:
            upper = self._upper()
            top = upper.where(unknown, -1.0).topk(min(looked, int(unknown.sum()))).indices.sort().values
            self._exactly(top)
            is_known = is_current & (self._exact_at == self._design.count)
            floor = float(self._exact.where(is_known, -1.0).max())
            unknown = is_current & ~is_known & (upper >= floor * (1 - TIE_TOLERANCE))
            if int(unknown.sum()) <= looked:
                return floor
            looked = min(looked * 4, AT_A_TIME)

    def _exactly(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """What is left of some pairs, computed exactly, once between two picks."""
        unknown = rows[self._exact_at[rows] < self._design.count]
        if len(unknown):  # mostly all were looked at for the lower bound
            for part in unknown.split(AT_A_TIME):
                self._exact[part] = self._design.left_of(self._features_of(part))
            self._exact_at[unknown] = self._design.count
        return self._exact[rows]

    def _features_of(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows proj_dim"]:
        if self._is_in_pool[rows].all():
            return self._pool.features[self._pool.places_of(rows)]
        return self._candidates.take(rows).to(self._left)

    def _read_all(self) -> None:
        """Apply all picks to all pairs, and fill the pool with those of which the most may be left."""
        is_first = not self.passes
        for start in range(0, len(self._left), self._size.chunk):
            part = slice(start, start + self._size.chunk)
            features = self._in_float64(self._candidates.read(start, min(part.stop, len(self._left))))
            if is_first:
                squared_norms = torch.linalg.vector_norm(features, dim=1).square()
                if not squared_norms.isfinite().all():
                    raise ValueError("pair features are not finite")
                self._left[part], self._slack[part] = squared_norms, squared_norms
                if self._design.has_history:
                    self._left[part] = self._design.left_by_history(features, squared_norms)
            if self._is_stale:
                stale = self._left[part] - self._design.covered_since(features, self._applied)
                self._left[part] = self._left[part].where(self._is_in_pool[part], stale)
            self._left[part].clamp_min_(0)
        self._chunk = None
        if is_first:
            self._slack *= self._design.rounding(float(self._slack.max()))
        self._applied = self._design.count
        self.passes += 1
        self._fill()

    def _in_float64(self, features: Float[Tensor, "rows proj_dim"]) -> Float[Tensor, "rows proj_dim"]:
        """In float64, where they are not yet, in memory that is taken once for all chunks: none is larger than the first."""
        if features.dtype == torch.float64 and features.device == self._left.device:
            return features
        if self._chunk is None:
            self._chunk = self._left.new_empty(features.shape)
        return self._chunk[: len(features)].copy_(features)

    def _fill(self) -> None:
        size = min(self._pool_size, self._size.most, int(self._is_open.sum()))
        rows = self._upper().topk(size).indices.sort().values
        self._pool = self._no_pool  # two pools at once would take twice the memory
        self._pool = Pool(rows, self._candidates.take(rows).to(self._left), self._design.count)
        self._is_in_pool.zero_()
        self._is_in_pool[rows] = True
        self._pool_size *= 2
