"""Formats numbers for people, such as `0.873` and `92.5 %`; None becomes an empty text."""

from collections.abc import Sequence

from activedpo_cli.base.numbers import shown
from activedpo_cli.statistics.summaries import FiveNumbers, MeanInterval


def number(value: float | None, digits: int = 3, *beside: float) -> str:
    """`0.873`; with more digits where these would hide the number, as `shown` says."""
    return "" if value is None else shown(value, digits, *beside).replace("-", "\N{MINUS SIGN}")


def share(value: float | None) -> str:
    """`92.5 %`."""
    return "" if value is None else f"{number(100 * value, 1)} %"


def with_interval(value: float | None, low: float | None, high: float | None, digits: int = 3) -> str:
    """`0.873 [0.851, 0.895]`, without the brackets where there is no interval."""
    if value is None or low is None or high is None:
        return number(value, digits)
    numbers = (value, low, high)
    mean, *ends = (number(one, digits, *numbers) for one in numbers)
    return f"{mean} [{', '.join(ends)}]"


def signed(interval: MeanInterval, *, is_share: bool = False) -> str:
    """`+0.873 [0.851, 0.895]`: a difference with its interval, of shares `+9.2 % [3.1, 15.3]`."""
    wording = share_with_interval if is_share else with_interval
    return ("+" if interval.mean > 0 else "") + wording(*interval)


def share_with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """`92.5 % [83.1, 97.2]`."""
    if value is None or low is None or high is None:
        return share(value)
    numbers = (100 * value, 100 * low, 100 * high)
    mean, *ends = (number(one, 1, *numbers) for one in numbers)
    return f"{mean} % [{', '.join(ends)}]"


def median_and_range(values: FiveNumbers | None, digits: int = 2) -> str:
    """`21.00 (18.00 to 24.00)`: the median and the middle half."""
    if values is None:
        return ""
    numbers = (values.median, values.lower_quartile, values.upper_quartile)
    median, low, high = (number(one, digits, *numbers) for one in numbers)
    return f"{median} ({low} to {high})"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
