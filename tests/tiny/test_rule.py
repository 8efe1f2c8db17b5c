"""The rule's score by hand, its bounds, and which way it moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.tiny.rule import GLOOMY, WARM, score

WORDS = st.lists(st.sampled_from(["tree", "went", "blue", "day", "happy", "kind", "sad", "lost"]), min_size=2)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("", 0.0),
        (" 12 !", 0.0),
        ("The tree was tall.", 1 / 2),
        ("Happy", (1 + 1 / 2) / 2),
        ("She smiled and was happy.", (1 + 2 / 3) / 2),
        ("She was sad.", (1 - 1 / 2) / 2),
        ("He was SAD, then happy!", 1 / 2),
        ("go on go on", 1 / 2 * 2 / 3),  # pairs: go on, on go, go on
        ("happy happy happy", (1 + 3 / 4) / 2 * 1 / 2),
    ],
)
def test_by_hand(response, expected):
    assert score(["p"], [response]) == [pytest.approx(expected)]


def test_the_lists_share_no_word_and_are_lower_case():
    assert not WARM & GLOOMY
    assert all(word == word.lower() and word.isalpha() for word in WARM | GLOOMY)


@given(st.text())
def test_bounded(text):
    assert 0 <= score(["p"], [text])[0] < 1


@given(WORDS)
def test_a_new_gloomy_word_lowers_and_a_new_warm_word_raises(words):
    before, gloomier, warmer = score(
        ["p"] * 3, [" ".join(words), " ".join([*words, "terrible"]), " ".join([*words, "wonderful"])]
    )
    pairs = list(zip(words, words[1:], strict=False))
    if len(set(pairs)) == len(pairs):  # otherwise a new pair also makes the text fresher
        assert gloomier < before < warmer


@given(WORDS)
def test_repeating_the_whole_never_helps_a_neutral_text(words):
    neutral = [word for word in words if word not in WARM | GLOOMY] or ["tree"]
    once, twice = score(["p"] * 2, [" ".join(neutral), " ".join(neutral * 2)])
    assert twice <= once


def test_lengths_must_fit():
    with pytest.raises(ValueError, match="1 prompts do not fit 2 responses"):
        score([""], ["a", "b"])
