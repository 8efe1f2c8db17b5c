"""Distributions as boxes."""

from collections.abc import Sequence

from activedpo_cli.reports.plot import Series
from activedpo_cli.statistics.summaries import FiveNumbers


def box_series(
    label: str,
    x: Sequence[float],
    values: Sequence[FiveNumbers],
    sources: Sequence[str],
    *,
    colour: int = 0,
    is_background: bool = False,
) -> Series:
    """A box at each x: whiskers from 5 % to 95 %, the box from quartile to quartile, a bar at the median."""
    return Series(
        label=label,
        x=list(x),
        y=[row.median for row in values],
        low=[row.low for row in values],
        high=[row.high for row in values],
        lower_quartile=[row.lower_quartile for row in values],
        upper_quartile=[row.upper_quartile for row in values],
        sources=list(sources),
        colour=colour,
        is_background=is_background,
    )
