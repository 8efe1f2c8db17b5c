"""Ranks rows, with ties in a seeded order, and keeps track of which rows may still be taken."""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Bool, Float, Int

TIE_TOLERANCE = 1e-9
"""Neighbouring values this close, relatively, count as tied."""


def ranked(
    values: Float[Tensor, " rows"], shuffled: Int[Tensor, " rows"], *, largest_first: bool = True
) -> Int[Tensor, " rows"]:
    """All rows, best value first; tied rows stand in the order that they have in `shuffled`, a permutation.

    Ties chain: of values that are each close to the next, first and last may lie further apart.
    """
    found = values.to("cpu", torch.float64)[shuffled]
    order = found.argsort(descending=largest_first, stable=True)
    ordered = found[order]
    steps = ordered.diff().abs() > TIE_TOLERANCE * torch.maximum(ordered[:-1].abs(), ordered[1:].abs())
    group = torch.zeros_like(order)
    group[1:] = steps.cumsum(dim=0)
    places = torch.empty_like(group)
    places[order] = group  # of each place in `shuffled`, the number of its group of tied values
    return shuffled[places.argsort(stable=True)]


def standardised(values: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """Less their mean and in units of their standard deviation; zeros where all are equal or there is one."""
    centred = values - values.mean()
    deviation = centred.square().mean().sqrt()
    return centred / deviation if deviation > 1e-12 * values.abs().amax() else torch.zeros_like(values)


def grouped(shuffled: Int[Tensor, " rows"], groups: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """`shuffled`, a permutation, with all rows of a group moved up to the first of them."""
    group_of_row = groups.cpu().unique(return_inverse=True)[1][shuffled]
    places = torch.arange(len(shuffled))
    first = torch.full_like(places, len(shuffled)).scatter_reduce(0, group_of_row, places, "amin")
    return shuffled[first[group_of_row].argsort(stable=True)]


class OpenRows:
    """Which rows may still be taken: all at first.

    A row closes when it is taken; its group closes when `max_per_group` of it are taken.
    """

    def __init__(
        self, count: int, groups: Int[Tensor, " rows"] | None = None, max_per_group: int | None = None
    ) -> None:
        self.mask: Bool[Tensor, " rows"] = torch.ones(count, dtype=torch.bool)
        """True for rows that may be taken."""
        self._groups = None if groups is None or max_per_group is None else groups.cpu()
        self._limit = max_per_group
        self._taken_of_group: dict[int, int] = {}

    def take(self, row: int) -> None:
        """Close the row, and its group if that is full now; raises ValueError where the row is closed already."""
        if not self.mask[row]:
            raise ValueError(f"row {row} can not be taken")
        self.mask[row] = False
        if self._groups is not None:
            group = int(self._groups[row])
            self._taken_of_group[group] = self._taken_of_group.get(group, 0) + 1
            if self._taken_of_group[group] == self._limit:
                self.mask[self._groups == group] = False
