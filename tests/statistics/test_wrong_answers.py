"""The share of wrong answers by how often two answers differ, against simulated people and a quadratic solved by hand."""

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from activedpo_cli.statistics.wrong_answers import LARGEST_SHARE, in_words, share_that_differs_by, wrong_answers


@pytest.mark.parametrize(
    ("difference", "share"), [(0.0, 0.0), (0.18, 0.1), (0.32, 0.2), (0.42, 0.3), (0.5, 0.5), (0.7, 0.5)]
)
def test_the_share_solves_the_quadratic(difference: float, share: float) -> None:
    """2 · 0.1 · 0.9 = 0.18, 2 · 0.2 · 0.8 = 0.32, 2 · 0.3 · 0.7 = 0.42; nothing explains more than one half."""
    assert share_that_differs_by(difference) == pytest.approx(share)


@pytest.mark.parametrize("wrong", [0.05, 0.2, 0.35])
def test_simulated_people_are_found_out(wrong: float) -> None:
    """Two who err independently on 40,000 pairs; the interval holds the truth in 19 of 20 draws of 200 pairs."""
    generator = np.random.default_rng(0)
    errors = generator.random((2, 40_000)) < wrong
    differ = errors[0] != errors[1]
    assert wrong_answers(int(differ.sum()), differ.size).share == pytest.approx(wrong, abs=0.01)
    held = [wrong_answers(int(part.sum()), part.size).interval for part in differ.reshape(200, 200)]
    assert 0.91 <= np.mean([low <= wrong <= high for low, high in held]) <= 0.99


def test_errors_that_vary_are_underestimated() -> None:
    """Half of the pairs are sure and half a coin: one in four is wrong, and d = ¼ says 0.146."""
    assert wrong_answers(25_000, 100_000).share == pytest.approx((1 - 0.5**0.5) / 2, abs=1e-4)


def test_few_pairs_do_not_make_answers_faultless_nor_worthless() -> None:
    none = wrong_answers(0, 15)
    assert none.share == pytest.approx((1 - (1 - 2 * 0.5 / 16) ** 0.5) / 2)
    assert none.interval.low == 0
    low, high = proportion_confint(4, 15, method="wilson")
    assert wrong_answers(4, 15).interval == pytest.approx((share_that_differs_by(low), share_that_differs_by(high)))
    most = wrong_answers(9, 15)
    assert (most.share, most.is_cut, most.interval.high) == (LARGEST_SHARE, True, 0.5)
    assert not wrong_answers(7, 15).is_cut
    with pytest.raises(ValueError, match="0 of 0"):
        wrong_answers(0, 0)


def test_words() -> None:
    facts = {"share": 0.2160, "low": 0.1078, "high": 0.5, "differing": 10, "pairs": 30}
    assert in_words(facts).startswith("22 % of answers were taken as wrong, since 10 of 30 pairs")
    assert in_words(facts).endswith("(95 % interval 11 to 50 %)")
