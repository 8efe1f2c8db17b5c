"""How many answers are wrong, from how often two answers to the same question differ.

If each of two answers is wrong with probability ε, independently, they differ with probability d = 2 ε (1 − ε), so that
ε = (1 − √(1 − 2 d)) / 2. Two assumptions carry this. Errors are independent: what misleads both counts as right. And they
are equally likely for all pairs and people: where ε varies, the mean of ε is larger than what d says, since d is concave in
ε. So the estimate is low rather than high.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from activedpo_cli.statistics.agreement import Interval, wilson_interval

LARGEST_SHARE = 0.4
"""What an estimate is cut down to: near ½ answers say nothing, and a loss that divides by 1 − 2 ε grows without bound."""


@dataclass(frozen=True, kw_only=True)
class WrongAnswers:
    """An estimated share of wrong answers.

    Attributes:
        share: The estimate, at most `LARGEST_SHARE`.
        interval: Wilson's 95 % interval of d, as shares of wrong answers; its ends are at most ½.
        differing: Pairs about which two answers differ.
        pairs: Pairs with two answers.
        is_cut: Whether the pairs alone would give more than `LARGEST_SHARE`.

    """

    share: float
    interval: Interval
    differing: int
    pairs: int
    is_cut: bool


def in_words(facts: Mapping[str, Any]) -> str:
    """What a record says of an estimate, in a few words."""
    return (
        f"{100 * facts['share']:.0f} % of answers were taken as wrong, since {facts['differing']} of {facts['pairs']} pairs "
        f"that were answered twice differ (95 % interval {100 * facts['low']:.0f} to {100 * facts['high']:.0f} %)"
    )


def wrong_answers(differing: int, pairs: int) -> WrongAnswers:
    """The share of wrong answers, by the pairs that were answered twice.

    d is estimated as (differing + ½) / (pairs + 1), the mean under Jeffreys' prior, so that a few pairs without a difference
    do not make answers faultless. Raises ValueError unless 0 ≤ differing ≤ pairs and pairs > 0.
    """
    low, high = wilson_interval(differing, pairs)
    share = share_that_differs_by((differing + 0.5) / (pairs + 1))
    return WrongAnswers(
        share=min(share, LARGEST_SHARE),
        interval=Interval(share_that_differs_by(low), share_that_differs_by(high)),
        differing=differing,
        pairs=pairs,
        is_cut=share > LARGEST_SHARE,
    )


def share_that_differs_by(difference: float) -> float:
    """ε ≤ ½ with 2 ε (1 − ε) = difference; ½ where answers differ more often than by coins, which no ε explains."""
    return (1 - math.sqrt(max(0.0, 1 - 2 * difference))) / 2
