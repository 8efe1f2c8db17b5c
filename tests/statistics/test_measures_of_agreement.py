"""Against published figures, statsmodels, scipy, and sums written out."""

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activedpo_cli.statistics.agreement import (
    binomial_p,
    bootstrap_interval,
    cohen_kappa,
    cohen_kappa_of,
    krippendorff_alpha,
    wilson_interval,
)

RATERS = (  # the data of the README of the package krippendorff, which gives a nominal α of 0.691 for them
    "*    *    *    *    *    3    4    1    2    1    1    3    3    *    3",
    "1    *    2    1    3    3    4    3    *    *    *    *    *    *    *",
    "*    *    2    1    3    4    4    *    2    1    1    3    3    *    4",
)
answers = st.sampled_from(["a", "b", "tie", "both_bad"])


def test_alpha_of_published_data():
    units = [[value for value in column if value != "*"] for column in zip(*map(str.split, RATERS), strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.691, abs=5e-4)


def honest_alpha(units):
    """Dₒ and Dₑ as means over all ordered pairs of values, those within a unit weighted as Krippendorff does."""
    compared = [unit for unit in units if len(unit) > 1]
    values = [value for unit in compared for value in unit]
    pairs = list(itertools.permutations(values, 2))
    expected = sum(one != other for one, other in pairs) / len(pairs) if pairs else 0.0
    if not expected:
        return None
    observed = sum(
        sum(one != other for one, other in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in compared
    ) / len(values)
    return 1 - observed / expected


@given(st.lists(st.lists(answers, max_size=4), max_size=12))
def test_alpha_is_that_of_all_pairs_written_out(units):
    honest, found = honest_alpha(units), krippendorff_alpha(units)
    assert (found is None) == (honest is None)
    assert honest is None or found == pytest.approx(honest)


@settings(deadline=None)  # the first example waits for the import
@given(st.lists(st.tuples(answers, answers), min_size=1, max_size=40))
def test_kappa_is_that_of_statsmodels(pairs):
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    first, second = zip(*pairs, strict=True)
    names = sorted({*first, *second})
    table = np.array([[sum(pair == (one, other) for pair in pairs) for other in names] for one in names])
    found = cohen_kappa(first, second)
    if found is None:
        assert len(names) == 1
    else:
        assert found == pytest.approx(inter_rater.cohens_kappa(table, return_results=False))


def test_kappa_of_the_prevalence_paradox():
    """90 % agree and κ is below 0, since chance alone would agree on more."""
    first = ["a"] * 18 + ["tie", "a"]
    second = ["a"] * 18 + ["a", "tie"]
    assert cohen_kappa(first, second) == pytest.approx((0.9 - 0.905) / (1 - 0.905))
    assert cohen_kappa([], []) is None


@pytest.mark.parametrize(
    ("n", "expected"), [(10, (0.40, 0.89)), (50, (0.56, 0.81)), (100, (0.60, 0.78)), (200, (0.63, 0.76))]
)
def test_wilson_at_seventy_per_cent(n, expected):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    found = wilson_interval(round(0.7 * n), n)
    assert found == pytest.approx(expected, abs=0.006)
    assert found == pytest.approx(proportion.proportion_confint(round(0.7 * n), n, method="wilson"))


@settings(deadline=None)
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.5, 0.2, 0.9]))
def test_the_exact_test_is_that_of_scipy(counts, p):
    stats = pytest.importorskip("scipy.stats")
    assert binomial_p(*counts, p) == pytest.approx(stats.binomtest(*counts, p).pvalue)


def test_the_exact_test_of_thirty_three_of_fifty():
    tail = sum(math.comb(50, count) for count in range(33, 51)) / 2**50
    assert binomial_p(33, 50) == pytest.approx(2 * tail)
    assert round(binomial_p(33, 50), 2) == 0.03


def test_many_answers_take_no_longer_than_a_person_waits():
    """A run of two hundred iterations: the exact test and a thousand draws."""
    stats = pytest.importorskip("scipy.stats")
    generator, start = np.random.default_rng(0), time.monotonic()
    tail = stats.binomtest(8100, 16_000).pvalue
    assert binomial_p(8100, 16_000) == pytest.approx(tail)
    pairs = {
        f"p{place}": [(str(one), str(other))]
        for place, (one, other) in enumerate(generator.integers(2, size=(6000, 2)))
    }
    found = bootstrap_interval(pairs, cohen_kappa_of, generator)
    assert found.high - found.low == pytest.approx(2 * 1.96 / math.sqrt(6000), rel=0.2), "of kappa near 0 of two values"
    assert time.monotonic() - start < 10, "on a busy machine"


@pytest.mark.parametrize(
    "call", [lambda: wilson_interval(1, 0), lambda: wilson_interval(3, 2), lambda: binomial_p(3, 2)]
)
def test_what_is_no_share_is_refused(call):
    with pytest.raises(ValueError, match="of"):
        call()


def test_the_bootstrap_covers_as_often_as_it_says():
    """Prompts of four pairs that are all right or all wrong: drawing pairs instead would give half the width."""
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        right = generator.random(60) < 0.7
        units = {f"p{place}": [value] * 4 for place, value in enumerate(right.tolist())}
        found = bootstrap_interval(units, lambda drawn: drawn.get(True, 0) / 240, generator, draws=200)
        covered += found.low <= 0.7 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_bootstrap_says_nothing_of_one_prompt():
    generator = np.random.default_rng(0)
    assert bootstrap_interval({"p": [1.0, 0.0]}, lambda drawn: 0.0, generator) is None
    assert bootstrap_interval({"p": [1.0], "q": [0.0]}, lambda drawn: None, generator) is None
