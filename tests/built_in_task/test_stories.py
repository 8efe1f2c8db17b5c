"""Stories are whole sentences, speak of one hero, and can be continued in many moods."""

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.tiny.rule import score
from built_in_task import stories, story_parts
from built_in_task.stories import draw_prompts, draw_story
from built_in_task.story_parts import SETTINGS

SENTENCE = re.compile(r'^"?[A-Z].*[.!?]"?$')


def sentences(text):
    """Split behind a full stop, a question mark or the quotation mark that follows it."""
    return re.split(r'(?<=[.!?])\s+(?=["A-Z])|(?<=[.!?]")\s+(?=["A-Z])', text.strip())


@given(seed=st.integers())
def test_every_sentence_is_filled_in_and_well_formed(seed):
    story = draw_story(Random(seed))
    assert story.response.startswith(" ")
    assert story.text.isascii()
    assert "{" not in story.text
    assert "  " not in story.text
    assert all(SENTENCE.match(sentence) for sentence in [*sentences(story.prompt), *sentences(story.response)])
    assert len(sentences(story.prompt)) == 2
    assert " the a " not in story.text
    assert " the an " not in story.text


@given(seed=st.integers())
def test_equal_states_give_equal_stories(seed):
    assert draw_story(Random(seed)) == draw_story(Random(seed))


@given(seed=st.integers())
def test_a_continuation_has_two_to_four_different_sentences_and_an_ending(seed):
    *body, ending = stories._continuation(SETTINGS[seed % len(SETTINGS)], Random(seed))
    plain = [
        next((line.removeprefix(link) for link in story_parts.LINKS if line.startswith(link)), line) for line in body
    ]
    assert 2 <= len(set(plain)) == len(plain) <= 4
    assert ending in story_parts.WARM_ENDINGS + story_parts.GLOOMY_ENDINGS + story_parts.PLAIN_ENDINGS


def test_prompts_are_different_and_no_prompt_decides_the_mood():
    prompts = draw_prompts(300, Random("a"))
    assert len(set(prompts)) == 300
    random = Random("b")
    drawn = [draw_story(random) for _ in range(4000)]
    scores = score([story.prompt for story in drawn], [story.response for story in drawn])
    assert min(scores) < 0.15
    assert max(scores) > 0.85
    for kind in story_parts.KINDS:
        own = [value for value, story in zip(scores, drawn, strict=True) if f" {kind}" in story.prompt]
        assert 0.4 < sum(own) / len(own) < 0.62


@pytest.mark.parametrize("kind", ["girl", "boy"])
def test_pronouns_fit(kind):
    random = Random(kind)
    names, others = {
        "girl": (story_parts.GIRLS, r"\b(he|him|his)\b"),
        "boy": (story_parts.BOYS, r"\b(she|her)\b"),
    }[kind]
    drawn = [draw_story(random) for _ in range(1500)]
    own = [story for story in drawn if re.search(rf"\b{kind}\b", story.prompt.split(".")[0])]
    assert len(own) > 50
    for story in own:
        assert any(name in story.prompt.split(".")[0] for name in names)
        assert not re.search(others, story.text), story.text
