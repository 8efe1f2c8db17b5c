"""Numbers for people: so many decimals, and more where they would hide all that there is."""

import math

SIGNIFICANT = 2
"""Digits that tell something, which every number but 0 has."""
MOST_DECIMALS = 5
"""A number that needs more is written with its power of ten."""


def counted(number: int, what: str, verbs: tuple[str, str] | None = None) -> str:
    """`1 row`, `2 rows`, or with verbs `1 row is`, `2 rows are`; `what` is the word for one."""
    verb = f" {verbs[number != 1]}" if verbs else ""
    return f"{number} {what}" + ("" if number == 1 else "s") + verb


def shown(value: float, decimals: int = 3, *beside: float) -> str:
    """`0.873`; but `0.040` where one decimal was asked for, and `1.2e-07`; without decimals a whole number.

    Numbers that stand beside each other, such as the ends of an interval, have as many decimals as the largest of them
    needs.
    """
    value = value or 0.0  # without the sign of a zero
    largest = max((abs(number) for number in (value, *beside) if math.isfinite(number)), default=0.0)
    if largest == 0 or decimals == 0:
        return f"{value:.{decimals}f}"
    needed = SIGNIFICANT - 1 - math.floor(math.log10(largest))
    if needed > MOST_DECIMALS and needed > decimals:
        return f"{value:.{SIGNIFICANT - 1}e}"
    text = f"{value:.{max(decimals, needed)}f}"
    return text.removeprefix("-") if not float(text) else text


def share_of(part: int, whole: int) -> str:
    """`40 % (2 of 5)`; `0 of 0` where there is nothing to have a share of."""
    return f"{shown(100 * part / whole, 0)} % ({part} of {whole})" if whole else f"{part} of {whole}"
