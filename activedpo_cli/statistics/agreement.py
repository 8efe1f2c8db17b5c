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
Said = TypeVar("Said", bound=tuple[str, ...])


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
        ways, tail = 1, 0  # of a symmetric distribution both tails are alike, up to the smaller of the two counts
        for count in range(min(successes, n - successes) + 1):
            tail += ways
            ways = ways * (n - count) // (count + 1)
        return min(2 * tail, 2**n) / 2**n
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
    return cohen_kappa_of(Counter(zip(first, second, strict=True)))


def cohen_kappa_of(counts: Mapping[tuple[str, str], int]) -> float | None:
    """The same, from how often both said which two things."""
    number = sum(counts.values())
    if not number:
        return None
    ones: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for (one, other), count in counts.items():
        ones[one] += count
        others[other] += count
    observed = sum(count for (one, other), count in counts.items() if one == other) / number
    by_chance = sum(ones[value] * others[value] for value in ones) / number**2
    return None if math.isclose(by_chance, 1.0) else (observed - by_chance) / (1 - by_chance)


def krippendorff_alpha(units: Sequence[Sequence[str]]) -> float | None:
    """Agreement of any number of people beyond chance, α = 1 − Dₒ / Dₑ for nominal values (Krippendorff 2011).

    Args:
        units: What was said of each unit, by however many people; units with fewer than two values count for nothing.

    Returns:
        1 for perfect agreement, 0 for what chance gives; None where nothing can be compared, or only one value occurs.

    """
    return krippendorff_alpha_of(Counter(map(tuple, units)))


def krippendorff_alpha_of(counts: Mapping[Said, int]) -> float | None:
    """The same, from of how many units the same was said."""
    totals: Counter[str] = Counter()
    observed = 0.0
    for said, times in counts.items():
        if len(said) < 2 or not times:
            continue
        values = Counter(said)
        for value, count in values.items():
            totals[value] += times * count
        observed += times * (len(said) ** 2 - sum(count**2 for count in values.values())) / (len(said) - 1)
    number = totals.total()
    expected = number**2 - sum(count**2 for count in totals.values())
    return 1 - (number - 1) * observed / expected if expected else None


def bootstrap_interval(
    by_prompt: Mapping[str, Sequence[Unit]],
    statistic: Callable[[Mapping[Unit, int]], float | None],
    generator: "np.random.Generator",
    *,
    draws: int = 1000,
    confidence: float = 0.95,
) -> Interval | None:
    """The percentile interval of a statistic when prompts are drawn anew (Efron 1979).

    Args:
        by_prompt: The units of each prompt, which are drawn together. Only how many of them are equal counts, so that many
            prompts take no longer than few kinds of units.
        statistic: Of how often each unit was drawn; draws for which it is None are left out.
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
    kinds = {unit: place for place, unit in enumerate(dict.fromkeys(unit for group in groups for unit in group))}
    units = np.zeros((len(groups), len(kinds)), dtype=np.int64)
    for row, group in zip(units, groups, strict=True):
        for unit in group:
            row[kinds[unit]] += 1
    found = []
    for chosen in generator.integers(len(groups), size=(draws, len(groups))):
        drawn = np.bincount(chosen, minlength=len(groups)) @ units
        value = statistic({unit: count for unit, count in zip(kinds, drawn.tolist(), strict=True) if count})
        if value is not None:
            found.append(value)
    if 2 * len(found) < draws:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(found, dtype=float), (tail, 1 - tail)).tolist()
    return Interval(low, high)
