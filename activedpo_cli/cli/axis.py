"""A number axis with round ticks. Decimals, so that ticks are exact and no size of number overflows."""

from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

NARROWEST = Decimal("1e-9")
"""The least extent of an axis as a share of its numbers; below it their labels would be all digits."""


def round_ticks(low: float, high: float, most: int) -> list[Decimal]:
    """Ticks at equal, round distances (1, 2 or 5 times a power of ten), from at most `low` to at least `high`.

    At least two and at most `most + 1` of them, as dense as that allows. `low` and `high` are finite.
    """
    bottom, top = _widened(Decimal(repr(low)), Decimal(repr(high)))
    power = (top - bottom).adjusted() - 2
    while True:
        for factor in (1, 2, 5):
            step = Decimal(factor).scaleb(power)
            first = (bottom / step).to_integral_value(ROUND_FLOOR)
            last = (top / step).to_integral_value(ROUND_CEILING)
            if last - first <= most:
                return [step * (first + number) for number in range(int(last - first) + 1)]
        power += 1


def tick_labels(ticks: Sequence[Decimal]) -> list[str]:
    """The ticks as text that gives them exactly, all written in one manner."""
    largest = max(abs(tick) for tick in ticks)
    step = ticks[1] - ticks[0]
    is_plain = step.adjusted() > -7 and largest.adjusted() < 7
    if is_plain:
        return [f"{tick:f}" for tick in ticks]
    return [f"{tick.normalize():e}" if tick else "0" for tick in ticks]


def place(value: float, ticks: Sequence[Decimal], cells: int) -> int:
    """The cell, from 0 at the first tick to `cells - 1` at the last, in which `value` lies."""
    share = (Decimal(repr(value)) - ticks[0]) / (ticks[-1] - ticks[0])
    return int((share * (cells - 1)).to_integral_value())


def _widened(low: Decimal, high: Decimal) -> tuple[Decimal, Decimal]:
    """The two ends, apart enough for an axis; one value alone gets a tenth of itself on either side."""
    largest = max(abs(low), abs(high))
    if low == high:
        margin = largest / 10 or Decimal(1)
    elif high - low < NARROWEST * largest:
        margin = NARROWEST * largest
    else:
        margin = Decimal(0)
    return low - margin, high + margin
