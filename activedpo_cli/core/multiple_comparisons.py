"""Paired comparisons over seeds without assuming a distribution, and what looking at several of them costs."""

import itertools
import random
from collections.abc import Sequence
from statistics import fmean

from activedpo_cli.core.statistics import MeanInterval, Number

MOST_EXACT = 14
"""Differences up to which all signs are tried; beyond, a sample of them."""
SAMPLED_SIGNS = 20_000
BOOTSTRAP_SAMPLES = 10_000


def sign_flip_p_value(differences: Sequence[Number], seed: int = 0) -> float:
    """Two-sided p of mean difference 0: the share of all choices of signs whose |mean| is at least the one seen.

    Exact for up to 14 differences; with n of them it can't be smaller than 2 / 2ⁿ. Valid where each difference would be
    as likely of either sign if the arms were alike, whatever its distribution (Fisher's randomisation test). Raises
    ValueError for no differences.
    """
    values = [float(value) for value in differences]
    if not values:
        raise ValueError("no differences to test")
    seen = abs(sum(values))
    reached = seen - 1e-12 * sum(map(abs, values))  # sums in another order are as large but for rounding
    if len(values) <= MOST_EXACT:
        choices = itertools.product((1, -1), repeat=len(values))
        return fmean(abs(sum(s * v for s, v in zip(signs, values, strict=True))) >= reached for signs in choices)
    draw = random.Random(seed)
    hits = sum(abs(sum(draw.choice((1, -1)) * v for v in values)) >= reached for _ in range(SAMPLED_SIGNS))
    return (hits + 1) / (SAMPLED_SIGNS + 1)


def joint_sign_flip_p_value(rows: Sequence[Sequence[Number]], seed: int = 0) -> float:
    """The same for several differences at once: p of all their means being 0, by Σ mean²; a row has those of one seed.

    The signs of a row are flipped together. For rows of one difference it is `sign_flip_p_value`. Raises ValueError for no
    differences.
    """
    if not rows or not rows[0]:
        raise ValueError("no differences to test")
    columns = [[float(value) for value in column] for column in zip(*rows, strict=True)]

    def size(signs: Sequence[int]) -> float:
        return sum(sum(s * v for s, v in zip(signs, column, strict=True)) ** 2 for column in columns)

    reached = size([1] * len(rows)) - 1e-12 * sum(sum(map(abs, column)) ** 2 for column in columns)
    if len(rows) <= MOST_EXACT:
        return fmean(size(signs) >= reached for signs in itertools.product((1, -1), repeat=len(rows)))
    draw = random.Random(seed)
    hits = sum(size([draw.choice((1, -1)) for _ in rows]) >= reached for _ in range(SAMPLED_SIGNS))
    return (hits + 1) / (SAMPLED_SIGNS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order: below α for all of which, the chance of any false one is below α."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def share_of_the_way(
    values: Sequence[Number], baseline: Sequence[Number], ceiling: Sequence[Number], seed: int = 0
) -> MeanInterval | None:
    """(mean value − mean baseline) / (mean ceiling − mean baseline) with a 95 % percentile bootstrap over seeds.

    The three have a value for each seed, in the same order. None where the ceiling is not above the baseline on average;
    without ends where it is not so in one of 40 resamples, or for a single seed.
    """
    rows = list(zip(values, baseline, ceiling, strict=True))
    mean = _ratio(rows)
    if mean is None:
        return None
    draw = random.Random(seed)
    found = [_ratio(draw.choices(rows, k=len(rows))) for _ in range(BOOTSTRAP_SAMPLES)] if len(rows) > 1 else []
    known = sorted(value for value in found if value is not None)
    if len(known) < 0.975 * BOOTSTRAP_SAMPLES:
        return MeanInterval(mean, None, None)
    return MeanInterval(mean, known[int(0.025 * len(known))], known[int(0.975 * len(known))])


def _ratio(rows: Sequence[tuple[Number, Number, Number]]) -> float | None:
    way = fmean(ceiling - base for _, base, ceiling in rows)
    return fmean(value - base for value, base, _ in rows) / way if way > 0 else None
