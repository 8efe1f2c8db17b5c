"""The card's measures by hand."""

import math
from random import Random

import pytest

from activedpo_cli.tiny.rule import score
from built_in_task.card import agreement, dictionary_share, distinct_2, words
from built_in_task.reward_model import draw_preferences


def test_words_and_distinct_pairs():
    assert words("Tom's dog isn't 12 big-eyed.") == ["Tom's", "dog", "isn't", "big", "eyed"]
    assert distinct_2(["a b a b", "b a c"]) == 3 / 5  # ab ba ab, ba ac: three different of five
    assert distinct_2(["a", "b c"]) == 1


def test_dictionary_share():
    assert dictionary_share(["Tom's dogg barked. The dog"], ["Tom", "barked", "the", "dog"]) == 4 / 5


def test_agreement_leaves_ties_out():
    assert agreement([[1, 2, 2]], [[5, 6, 7]]) == 1
    assert agreement([[1, 2, 3]], [[5, 9, 7]]) == pytest.approx(2 / 3)


def test_preferences_follow_bradley_and_terry():
    warm, gloomy = "She was happy.", "She was not here."
    gap = score(["p"], [warm])[0] - score(["p"], [gloomy])[0]
    found = draw_preferences({f"p{n}": [warm, gloomy, warm, " "] for n in range(4000)}, 0.4, Random(0))
    assert len(found) == 4000  # repeated and empty responses make no pairs
    wins = sum(row.chosen == warm for row in found) / 4000
    expected = 1 / (1 + math.exp(-gap / 0.4))
    assert abs(wins - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)
