"""Where names stand at the ends of lines, so that a figure needs no legend."""

import textwrap
from collections.abc import Sequence

LINE_LENGTH, MOST_LINES = 18, 2


def in_few_lines(name: str) -> str:
    """A name broken to stand beside a figure; a long one ends in `…`."""
    return "\n".join(textwrap.wrap(name, LINE_LENGTH, max_lines=MOST_LINES, placeholder="…")) or name


def spread(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Places between 0 and 1, in the order given, as near to those that are wanted as texts of these heights allow.

    The sum of squared distances is the least one possible: taking off what lies below each text leaves an isotonic
    regression, which pooling adjacent violators solves, and its bounded form is that solution cut off at the bounds. Where
    all texts together are higher than 1, they reach above it.
    """
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    below, offsets = 0.0, []
    for place in order:
        offsets.append(below + heights[place] / 2)
        below += heights[place]
    pools: list[tuple[float, int]] = []
    for place, offset in zip(order, offsets, strict=True):
        pools.append((wanted[place] - offset, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (last, many), (mean, count) = pools.pop(), pools.pop()
            pools.append(((mean * count + last * many) / (count + many), count + many))
    room = max(0.0, 1.0 - below)
    free = [min(max(mean, 0.0), room) for mean, count in pools for _ in range(count)]
    found = dict(zip(order, (value + offset for value, offset in zip(free, offsets, strict=True)), strict=True))
    return [found[place] for place in range(len(wanted))]
