"""Sums of what comes from several devices, so that nothing large travels between them."""

from collections.abc import Sequence

import torch
from torch import Tensor


class SumsByDevice:
    """A sum on each device where something is added; the total is taken in the order of their names, and so is the same."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, home: torch.device) -> None:
        self._shape, self._dtype, self._home = tuple(shape), dtype, home
        self._on: dict[torch.device, Tensor] = {}

    def beside(self, values: Tensor) -> Tensor:
        """The sum on the device of some values, to be added to in place."""
        if values.device not in self._on:
            self._on[values.device] = torch.zeros(self._shape, dtype=self._dtype, device=values.device)
        return self._on[values.device]

    def total(self) -> Tensor:
        """The sum of all, at home; where all came from there it is the sum itself."""
        parts = [self._on[device].to(self._home) for device in sorted(self._on, key=str)]
        if not parts:
            return torch.zeros(self._shape, dtype=self._dtype, device=self._home)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total
