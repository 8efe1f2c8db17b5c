"""Intervals, κ and the exact test against statsmodels, and against what a hand can count."""

from fractions import Fraction
from math import comb

import pytest

from activedpo_cli.statistics.agreement import binomial_p, cohen_kappa, wilson_interval


@pytest.mark.parametrize(("successes", "n"), [(7, 10), (35, 50), (70, 100), (140, 200), (0, 9), (9, 9)])
def test_wilson_is_that_of_statsmodels(successes: int, n: int) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    expected = proportion.proportion_confint(successes, n, method="wilson")
    assert wilson_interval(successes, n) == pytest.approx(expected, abs=1e-12)


def test_wilson_as_published_for_seventy_per_cent() -> None:
    found = [wilson_interval(7 * n // 10, n) for n in (10, 50, 100, 200)]
    rounded = [(round(low, 2), round(high, 2)) for low, high in found]
    assert rounded == [(0.40, 0.89), (0.56, 0.81), (0.60, 0.78), (0.63, 0.76)]


def test_kappa_is_that_of_statsmodels() -> None:
    irr = pytest.importorskip("statsmodels.stats.inter_rater")
    first = ["a"] * 20 + ["b"] * 15 + ["tie"] * 5
    second = ["a"] * 15 + ["b"] * 5 + ["b"] * 10 + ["a"] * 5 + ["tie"] * 3 + ["a"] * 2
    names = ["a", "b", "tie"]
    table = [[sum(pair == (x, y) for pair in zip(first, second, strict=True)) for y in names] for x in names]
    assert cohen_kappa(first, second) == pytest.approx(irr.cohens_kappa(table).kappa, abs=1e-12)


def test_kappa_where_chance_explains_all() -> None:
    assert cohen_kappa([], []) is None
    assert cohen_kappa(["a", "a"], ["a", "a"]) is None
    assert cohen_kappa(["a", "a"], ["a", "b"]) == 0
    assert cohen_kappa(["a", "b"], ["b", "a"]) == -1


@pytest.mark.parametrize(("successes", "n"), [(33, 50), (17, 50), (25, 50), (0, 0), (5, 5)])
def test_the_exact_test_counts_outcomes(successes: int, n: int) -> None:
    rare = sum(comb(n, k) for k in range(n + 1) if comb(n, k) <= comb(n, successes))
    assert binomial_p(successes, n) == pytest.approx(float(Fraction(rare, 2**n)), rel=1e-9)


def test_the_exact_test_of_an_uneven_coin() -> None:
    p = Fraction(1, 5)
    chances = [comb(9, k) * p**k * (1 - p) ** (9 - k) for k in range(10)]
    expected = sum(chance for chance in chances if chance <= chances[5])
    assert binomial_p(5, 9, 0.2) == pytest.approx(float(expected), rel=1e-9)
