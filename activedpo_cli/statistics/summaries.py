"""Means and win rates with their intervals, and five-number summaries of distributions; without scipy.

The observations have to be independent. Of one run these are its prompts, so average over a prompt's responses first; of
several runs they are the seeds.
"""

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

Number = int | float

_BISECTIONS = 100


class MeanInterval(NamedTuple):
    """A mean with its confidence interval; the ends are None where one observation gives none."""

    mean: float
    low: float | None
    high: float | None


class FiveNumbers(NamedTuple):
    """The 5 %, 25 %, 50 %, 75 % and 95 % points of some values."""

    low: float
    lower_quartile: float
    median: float
    upper_quartile: float
    high: float


@cache
def student_t_quantile(probability: float, degrees_of_freedom: Number) -> float:
    """The value that a t-distributed variable stays below with this probability.

    With t = √ν tan θ the density becomes proportional to cos^(ν−1) θ, which is integrated by Gauss–Legendre quadrature
    and inverted by bisection. Raises ValueError outside 0 < probability < 1 and degrees_of_freedom ≥ 1.
    """
    if not 0 < probability < 1 or not degrees_of_freedom >= 1:
        raise ValueError(f"no t quantile for probability {probability}, {degrees_of_freedom} degrees of freedom")
    central = abs(probability - 0.5)
    low, high = 0.0, math.pi / 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _probability_between_zero_and(middle, degrees_of_freedom) < central:
            low = middle
        else:
            high = middle
    return math.copysign(math.sqrt(degrees_of_freedom) * math.tan(low), probability - 0.5)


def mean_interval(values_per_prompt: Sequence[Number], confidence: float = 0.95) -> MeanInterval:
    """Mean over prompts with its Student-t interval; both ends are None for a single prompt.

    Raises ValueError for no values.
    """
    values = [float(value) for value in values_per_prompt]
    if not values:
        raise ValueError("no values to average")
    mean = fmean(values)
    if len(values) == 1:
        return MeanInterval(mean, None, None)
    quantile = student_t_quantile((1 + confidence) / 2, len(values) - 1)
    half_width = quantile * stdev(values) / math.sqrt(len(values))
    return MeanInterval(mean, mean - half_width, mean + half_width)


def win_rate(rewards: Sequence[Number], initial_rewards: Sequence[Number]) -> float:
    """Share of responses whose reward exceeds that of the initial model's response of equal index; ties count ½.

    Raises ValueError for no responses, unequal lengths, or a reward that is not a number.
    """
    pairs = [(float(new), float(old)) for new, old in zip(rewards, initial_rewards, strict=True)]
    if not pairs or any(math.isnan(new) or math.isnan(old) for new, old in pairs):
        raise ValueError("a win rate needs responses whose rewards are numbers")
    return fmean(1.0 if new > old else 0.5 if new == old else 0.0 for new, old in pairs)


def win_rate_interval(rates_per_prompt: Sequence[Number], confidence: float = 0.95) -> MeanInterval:
    """Mean of per-prompt win rates, or other shares of successes, with Wilson's score interval for n = prompts.

    Stays within [0, 1] and keeps a width when every prompt is won. A mean of shares varies no more than a mean of
    wins and losses, so it is cautious where prompts have several responses or ties. Raises ValueError for no prompts
    or a rate outside [0, 1].
    """
    rates = [float(rate) for rate in rates_per_prompt]
    if not rates or not all(0 <= rate <= 1 for rate in rates):
        raise ValueError("rates of prompts lie between 0 and 1, and there must be one")
    mean, count = fmean(rates), len(rates)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (mean + z**2 / (2 * count)) / (1 + z**2 / count)
    half_width = z / (1 + z**2 / count) * math.sqrt(mean * (1 - mean) / count + z**2 / (4 * count**2))
    return MeanInterval(mean, max(0.0, centre - half_width), min(1.0, centre + half_width))


def five_numbers(values: Sequence[Number]) -> FiveNumbers | None:
    """The five points, with linear interpolation between neighbouring values; None where there are no values."""
    import numpy as np  # imported on use: commands that only look at a run do without

    if not len(values):
        return None
    return FiveNumbers(*np.quantile(np.asarray(values, dtype=float), (0.05, 0.25, 0.5, 0.75, 0.95)).tolist())


@cache
def _quadrature() -> tuple[list[float], list[float]]:
    """Gauss–Legendre nodes and weights on [−1, 1]."""
    import numpy as np  # imported on use: commands that only look at a run do without

    nodes, weights = np.polynomial.legendre.leggauss(64)
    return nodes.tolist(), weights.tolist()


def _probability_between_zero_and(angle: float, degrees_of_freedom: Number) -> float:
    """P(0 < t < √ν tan angle)."""
    log_scale = math.lgamma((degrees_of_freedom + 1) / 2) - math.lgamma(degrees_of_freedom / 2) - math.log(math.pi) / 2
    nodes, weights = _quadrature()
    angles = (angle / 2 * (node + 1) for node in nodes)
    powers = (math.cos(place) ** (degrees_of_freedom - 1) for place in angles)
    integral = angle / 2 * math.fsum(weight * power for weight, power in zip(weights, powers, strict=True))
    return math.exp(log_scale) * integral
