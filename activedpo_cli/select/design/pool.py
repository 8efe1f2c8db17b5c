"""`Pool`: pairs whose features are held, and how much each further pick covers of every one of them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.select.design.design import Design

LIKELY = 64
"""Pairs whose products with all of the pool are computed together: those that will probably be picked next."""

RECENT = 64
"""Picks of which it is kept what they cover."""

SHARE_OF_FEATURES = 8
"""Either takes no more than this share of the pool's features, which are what memory is counted for."""


class Pool:
    """Some of the candidates, with their features.

    A pick φ' covers e² of what is left of a pair, e = λφᵀV⁻¹φ'/√(left' + λ) with V before the pick. Products λφᵀV⁻¹φ' by
    the V of an earlier moment are computed for several likely picks at once, from which those of now follow by the e of the
    picks since then: a pivoted Cholesky decomposition, whose columns are computed when they are needed.
    """

    def __init__(self, rows: Int[Tensor, " pool"], features: Float[Tensor, "pool proj_dim"], covered: int) -> None:
        """`rows` rises; `covered` of the pairs that were added to V are in all that is known of the pool's pairs."""
        self.rows = rows
        self.features = features
        self._since = covered
        """The earlier moment: V with so many of the pairs that were added."""
        most = max(1, features.shape[1] // SHARE_OF_FEATURES)
        self._likely_at_once = max(1, min(LIKELY, most, len(features)))
        self._covers = features.new_empty(min(RECENT, most), len(rows))
        """e of all pairs, one row for each pick since then, up to `_kept` of them."""
        self._kept = 0
        self._likely: Mapping[int, int] = {}
        """Where in `_products` a pair is, by its place in the pool."""
        self._products = self._covers[:0]

    def places_of(self, rows: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
        """Where in the pool its pairs are."""
        return torch.searchsorted(self.rows, rows)

    def covered_by_pick(
        self,
        place: int | None,
        feature: Float[Tensor, " proj_dim"],
        left: Float[Tensor, " pool"],
        left_of_pick: float,
        design: Design,
    ) -> Float[Tensor, " pool"]:
        """How much of what is left of each pair the pick covers that was added to V last.

        Args:
            place: Where in the pool it is; where it is not there, no other was added since the pool was read.
            left: What is left without it of each pair that may be picked later; the largest are the likely ones.

        """
        before = design.count - 1
        if not design.is_in_sample_space:
            return design.covered_since(self.features, before)
        if self._kept == len(self._covers):
            self._since, self._kept, self._likely = before, 0, {}
        if place is None:
            products = self.features @ design.shrink(feature[None], self._since)[0]
        else:
            if place not in self._likely:
                self._look_ahead(place, left, design)
            earlier = self._covers[: self._kept]
            products = self._products[self._likely[place]] - earlier[:, place] @ earlier
        covers = products / (left_of_pick + design.ridge) ** 0.5
        self._covers[self._kept] = covers
        self._kept += 1
        return covers.square()

    def _look_ahead(self, place: int, left: Float[Tensor, " pool"], design: Design) -> None:
        likely = left.topk(self._likely_at_once).indices.tolist()
        if place not in likely:
            likely[-1] = place
        self._likely = {place: number for number, place in enumerate(likely)}
        self._products = design.shrink(self.features[likely], self._since) @ self.features.T
