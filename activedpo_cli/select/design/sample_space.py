"""`SampleSpace`: what was left of each pick, and its direction, by products of the picks with each other.

Several picks are computed together, when they are asked for, so that what was labelled earlier is read once for all of them.
"""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float
from activedpo_cli.select.design.history import History

BLOCK = 16
"""Picks that are computed together."""

LARGEST = 1024
"""Picks up to which products of all with all are kept; never more than there are features."""


class SampleSpace:
    """The Cholesky decomposition LLᵀ of the picks' products λφᵀV⁻¹φ' by the history's V, with λ added on the diagonal.

    What is left of pick j when those before it were added is the product with itself less Σ Lⱼᵢ² over these, and λ more is
    Lⱼⱼ². Nothing is done about cancellation, so this is for picks of which enough is left.

    Picks stand in blocks, zeros where there is none yet. So a product has a shape that the pick's place decides, and what is
    found of a pick depends on it and those before it alone, to the last bit, however many were computed with it.
    """

    def __init__(self, history: History, ridge: float, picked: Float[Tensor, "places proj_dim"]) -> None:
        """`picked` is filled by the caller, and has whole blocks."""
        self._history, self._ridge, self._picked = history, ridge, picked
        self._coordinates = picked.new_zeros(0, 0)
        self._lower = torch.eye(len(picked), dtype=picked.dtype, device=picked.device)
        self._lefts: list[float] = []

    def lefts(self, count: int) -> list[float]:
        """What was left of each of the first `count` picks before it was added."""
        while len(self._lefts) < count:
            self._go_on(count)
        return self._lefts[:count]

    def write_directions(self, directions: Float[Tensor, "places proj_dim"], first: int, count: int) -> None:
        """λV⁻¹φ/√(left + λ) of picks from number `first` on, the earlier ones being there; V as each found it."""
        self.lefts(count)
        for start in range(first // BLOCK * BLOCK, count, BLOCK):
            part = slice(start, start + BLOCK)
            shrunk = self._history.shrink(self._picked[part], self._coordinates[part])
            shrunk -= self._lower[part, :start] @ directions[:start]
            directions[part] = torch.linalg.solve_triangular(self._lower[part, part], shrunk, upper=False)

    def _go_on(self, count: int) -> None:
        """Compute the picks of one more block, up to number `count`."""
        known = len(self._lefts)
        first = known // BLOCK * BLOCK
        part, end = slice(first, first + BLOCK), first + BLOCK
        coordinates = self._history.coordinates(self._picked[part])
        self._coordinates = torch.cat([self._coordinates[:first].reshape(first, coordinates.shape[1]), coordinates])
        products = self._history.products(self._picked[part], coordinates, self._picked[:end], self._coordinates)
        for place in range(known, min(end, count)):
            row, with_earlier = self._lower[place], products[place - first, :place, None]
            if place:
                earlier = self._lower[:place, :place]
                row[:place] = torch.linalg.solve_triangular(earlier, with_earlier, upper=False)[:, 0]
            left = max(0.0, float(products[place - first, place] - row[:place].square().sum()))
            row[place] = (left + self._ridge) ** 0.5
            self._lefts.append(left)
