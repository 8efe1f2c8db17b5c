"""Rows that may still be taken, where each group gives a limited number only."""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Bool, Int


class OpenRows:
    """All rows at first; a row that is taken closes, and with it its group once that has given its share."""

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
