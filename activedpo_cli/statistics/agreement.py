"""How well two who answered the same questions agree: shares with intervals, chance-corrected agreement, exact tests."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share: all p that a score test does not reject at 1 − confidence.

    Raises ValueError for no observations, or more successes than observations.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"no share of {successes} among {n}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, correction = successes / n, z * z / n
    centre = (share + correction / 2) / (1 + correction)
    half_width = z / (1 + correction) * math.sqrt(share * (1 - share) / n + correction / (4 * n))
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Cohen's κ = (pₒ − pₑ)/(1 − pₑ) with pₑ = Σₖ pₖqₖ; None where both always gave one and the same answer, or none.

    Raises ValueError for unequal numbers of answers.
    """
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True))
    counts, others = Counter(first), Counter(second)
    by_chance = sum(number * others[answer] for answer, number in counts.items())  # n² pₑ, exact
    if n == 0 or by_chance == n * n:
        return None
    return (n * observed - by_chance) / (n * n - by_chance)


def binomial_p(successes: int, n: int, p: float = 0.5) -> float:
    """Two-sided exact p: the probability of all counts that are no likelier than the one seen.

    Raises ValueError for more successes than observations, or where p is no probability strictly within 0 and 1.
    """
    if not 0 <= successes <= n or not 0 < p < 1:
        raise ValueError(f"no test of {successes} among {n} with probability {p}")
    if p == 0.5:
        ways = [math.comb(n, k) for k in range(n + 1)]
        return sum(number for number in ways if number <= ways[successes]) / 2**n
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(n + 1)
    ]
    bound = logs[successes] + 1e-7  # counts that are equally likely differ by rounding
    return min(1.0, math.fsum(math.exp(value) for value in logs if value <= bound))
