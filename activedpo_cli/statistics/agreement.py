"""How far people agree: shares with their intervals, Cohen's κ, Krippendorff's α, and what chance would give.

The unit of a bootstrap is the prompt: pairs of one prompt share its difficulty, so they are drawn together.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from activedpo_cli.statistics.summaries import win_rate_interval

if TYPE_CHECKING:
    import numpy as np

Unit = TypeVar("Unit")


class Interval(NamedTuple):
    """The ends of a confidence interval."""

    low: float
    high: float


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share (Wilson 1927); raises ValueError unless 0 ≤ successes ≤ n and n > 0."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n} is no share")
    found = win_rate_interval([1.0] * successes + [0.0] * (n - successes), confidence)
    assert found.low is not None
    assert found.high is not None
    return Interval(found.low, found.high)


def binomial_p(successes: int, n: int, p: float = 0.5) -> float:
    """The exact two-sided p-value of a share: the probability of all counts that are no likelier than this one.

    Raises ValueError unless 0 ≤ successes ≤ n and 0 < p < 1.
    """
    if not 0 <= successes <= n or not 0 < p < 1:
        raise ValueError(f"{successes} of {n} at {p} can't be tested")
    if p == 0.5:
        ways = [math.comb(n, count) for count in range(n + 1)]
        return sum(number for number in ways if number <= ways[successes]) / 2**n
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(count + 1)
        - math.lgamma(n - count + 1)
        + count * math.log(p)
        + (n - count) * math.log1p(-p)
        for count in range(n + 1)
    ]
    slack = 1e-7  # counts that are equally likely may differ in the last digits
    return min(1.0, math.fsum(math.exp(value) for value in logs if value <= logs[successes] + slack))


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Agreement of two people beyond chance, κ = (pₒ − pₑ) / (1 − pₑ) with pₑ = Σ pₖ qₖ (Cohen 1960).

    Args:
        first: What one person said of each unit.
        second: What the other said of the same units.

    Returns:
        1 for perfect agreement, 0 for what chance gives; None where there are no units, or where both always say the same
        one thing, so that chance alone agrees.

    Raises ValueError for unequal lengths.

    """
    pairs = Counter(zip(first, second, strict=True))  # a bootstrap asks a thousand times, of few different ones
    if not pairs:
        return None
    number = pairs.total()
    observed = sum(times for (one, other), times in pairs.items() if one == other) / number
    ones, others = Counter(first), Counter(second)
    by_chance = sum(ones[value] * others[value] for value in ones) / number**2
    return None if math.isclose(by_chance, 1.0) else (observed - by_chance) / (1 - by_chance)


def krippendorff_alpha(units: Sequence[Sequence[str]]) -> float | None:
    """Agreement of any number of people beyond chance, α = 1 − Dₒ / Dₑ for nominal values (Krippendorff 2011).

    Args:
        units: What was said of each unit, by however many people; units with fewer than two values count for nothing.

    Returns:
        1 for perfect agreement, 0 for what chance gives; None where nothing can be compared, or only one value occurs.

    """
    compared = Counter(tuple(values) for values in units if len(values) > 1)  # few differ: see `cohen_kappa`
    totals: Counter[str] = Counter()
    observed = 0.0
    for values, times in compared.items():
        counts = Counter(values)
        observed += times * (len(values) ** 2 - sum(count**2 for count in counts.values())) / (len(values) - 1)
        for value, count in counts.items():
            totals[value] += times * count
    number = totals.total()
    expected = number**2 - sum(count**2 for count in totals.values())
    if not expected:
        return None
    return 1 - (number - 1) * observed / expected


def bootstrap_interval(
    by_prompt: Mapping[str, Sequence[Unit]],
    statistic: Callable[[Sequence[Unit]], float | None],
    generator: "np.random.Generator",
    *,
    draws: int = 1000,
    confidence: float = 0.95,
) -> Interval | None:
    """The percentile interval of a statistic when prompts are drawn anew (Efron 1979).

    Args:
        by_prompt: The units of each prompt, which are drawn together.
        statistic: Of a list of units; draws for which it is None are left out.
        generator: Draws.
        draws: How often.
        confidence: The share that lies within.

    Returns:
        None for fewer than two prompts, or where the statistic is None in more than half of the draws.

    """
    import numpy as np  # imported on use: commands that only look at a run do without

    groups = list(by_prompt.values())
    if len(groups) < 2:
        return None
    found = []
    for chosen in generator.integers(len(groups), size=(draws, len(groups))).tolist():
        value = statistic([unit for place in chosen for unit in groups[place]])
        if value is not None:
            found.append(value)
    if 2 * len(found) < draws:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(found, dtype=float), (tail, 1 - tail)).tolist()
    return Interval(low, high)
