"""Formats numbers for people, such as `0.873` and `92.5 %`; None becomes an empty text."""

from collections.abc import Sequence

from activedpo_cli.statistics.summaries import FiveNumbers


def number(value: float | None, digits: int = 3) -> str:
    """`0.873`."""
    return "" if value is None else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def share(value: float | None) -> str:
    """`92.5 %`."""
    return "" if value is None else f"{number(100 * value, 1)} %"


def with_interval(value: float | None, low: float | None, high: float | None, digits: int = 3) -> str:
    """`0.873 [0.851, 0.895]`, without the brackets where there is no interval."""
    ends = "" if low is None or high is None else f" [{number(low, digits)}, {number(high, digits)}]"
    return number(value, digits) + ends if value is not None else ""


def share_with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """`92.5 % [83.1, 97.2]`."""
    ends = "" if low is None or high is None else f" [{number(100 * low, 1)}, {number(100 * high, 1)}]"
    return share(value) + ends if value is not None else ""


def median_and_range(values: FiveNumbers | None, digits: int = 2) -> str:
    """`21.00 (18.00 to 24.00)`: the median and the middle half."""
    if values is None:
        return ""
    return (
        f"{number(values.median, digits)} ({number(values.lower_quartile, digits)} to "
        f"{number(values.upper_quartile, digits)})"
    )


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
