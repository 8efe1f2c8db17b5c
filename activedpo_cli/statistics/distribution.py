"""A distribution in five numbers."""

from collections.abc import Sequence
from typing import NamedTuple

from activedpo_cli.statistics.statistics import Number


class FiveNumbers(NamedTuple):
    """The 5 %, 25 %, 50 %, 75 % and 95 % points of some values."""

    low: float
    lower_quartile: float
    median: float
    upper_quartile: float
    high: float


def five_numbers(values: Sequence[Number]) -> FiveNumbers | None:
    """The five points, with linear interpolation between neighbouring values; None where there are no values."""
    import numpy as np  # here, since commands that only look need no numbers

    if not len(values):
        return None
    return FiveNumbers(*np.quantile(np.asarray(values, dtype=float), (0.05, 0.25, 0.5, 0.75, 0.95)).tolist())
