"""Sign-flip tests over seeds, Holm's correction for several of them, and Fieller's interval for a share."""

import itertools
import math
import random
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from activedpo_cli.statistics.summaries import MeanInterval, Number, student_t_quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_EXACT = 14
"""Differences up to which all signs are tried; beyond, a sample of them."""
SAMPLED_SIGNS = 20_000


def sign_flip_p_value(differences: Sequence[Number], seed: int = 0) -> float:
    """Two-sided p of mean difference 0: the share of all choices of signs whose |mean| is at least the one seen.

    Exact for up to 14 differences; with n of them it can't be smaller than 2 / 2ⁿ. Valid where each difference would be
    as likely of either sign if the arms were alike, whatever its distribution (Fisher's randomisation test). Raises
    ValueError for no differences.
    """
    return joint_sign_flip_p_value([[value] for value in differences], seed)


def joint_sign_flip_p_value(rows: Sequence[Sequence[Number]], seed: int = 0) -> float:
    """The same for several differences at once: p of all their means being 0, by Σ mean²; a row has those of one seed.

    The signs of a row are flipped together. For rows of one difference it is `sign_flip_p_value`. Raises ValueError for no
    differences.
    """
    if not rows or not rows[0]:
        raise ValueError("no differences to test")
    import numpy as np  # imported on use: commands that only look at a run do without

    values = np.asarray([[float(value) for value in row] for row in rows])
    # A sum that is as large as the one seen may come out smaller by a rounding error, and has to count.
    rounding = 1e-12 * math.hypot(*np.abs(values).sum(axis=0))
    reached = math.hypot(*values.sum(axis=0)) - rounding
    if len(rows) <= MOST_EXACT:
        signs = np.asarray(list(itertools.product((1, -1), repeat=len(rows))))
    else:
        signs = _sampled_signs(SAMPLED_SIGNS * len(rows), seed).reshape(SAMPLED_SIGNS, len(rows))
    hits = int((np.linalg.norm(signs @ values, axis=1) >= reached).sum())
    return hits / len(signs) if len(rows) <= MOST_EXACT else (hits + 1) / (SAMPLED_SIGNS + 1)


def _sampled_signs(count: int, seed: int) -> "NDArray[np.int64]":
    """As many of 1 and -1 as `random.Random(seed).choice((1, -1))` gives one after the other, in a seventh of the time.

    The choice takes the first two bits of a word of the Mersenne Twister, and the next word while they are 2 or 3.
    """
    import numpy as np

    _, (*key, position), _ = random.Random(seed).getstate()
    words = np.random.MT19937()
    words.state = {"bit_generator": "MT19937", "state": {"key": np.asarray(key, np.uint32), "pos": position}}
    taken = np.empty(0, np.int64)
    while len(taken) < count:
        bits = (words.random_raw(2 * count) >> np.uint64(30)).astype(np.int64)
        taken = np.concatenate([taken, bits[bits < 2]])
    return 1 - 2 * taken[:count]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order: below α for all of which, the chance of any false one is below α."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def share_of_the_way(
    values: Sequence[Number], baseline: Sequence[Number], ceiling: Sequence[Number]
) -> MeanInterval | None:
    """(mean value − mean baseline) / (mean ceiling − mean baseline) with Fieller's 95 % interval over seeds.

    The three have a value for each seed, in the same order. The interval holds every share s for which the mean of
    (value − baseline) − s (ceiling − baseline) is not told from 0 by Student's t. None where the ceiling is not above the
    baseline on average; without ends where the seeds do not tell that it is, or for a single one.

    Source: Fieller, J. R. Stat. Soc. B 16 (1954) 175.
    """
    gains = [value - base for value, base in zip(values, baseline, strict=True)]
    ways = [top - base for top, base in zip(ceiling, baseline, strict=True)]
    gain, way, count = fmean(gains), fmean(ways), len(ways)
    if way <= 0:
        return None
    if count == 1:
        return MeanInterval(gain / way, None, None)
    scale = student_t_quantile(0.975, count - 1) ** 2 / count / (count - 1)
    spread_gain = scale * sum((value - gain) ** 2 for value in gains)
    spread_way = scale * sum((value - way) ** 2 for value in ways)
    together = scale * sum((one - gain) * (other - way) for one, other in zip(gains, ways, strict=True))
    square, middle = way**2 - spread_way, gain * way - together
    root = middle**2 - square * (gain**2 - spread_gain)
    if square <= 0 or root < 0:
        return MeanInterval(gain / way, None, None)
    return MeanInterval(gain / way, (middle - math.sqrt(root)) / square, (middle + math.sqrt(root)) / square)
