"""A score that a random model of single characters can move: how much of a text is lower-case letters and spaces.

A rule this plain can be checked by eye, needs no model, and can be learnt from a few hundred labels. It says nothing
about good English.
"""

from collections.abc import Sequence

CHARACTER_SCORES = dict.fromkeys("bcdfghjklmnpqrstvwxyz", 0.5) | dict.fromkeys("aeiou ", 1.0)


def score(prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
    """One score in [0, 1] for each response: the mean over its characters, 0 for an empty response.

    A lower-case vowel or a space counts 1, another lower-case letter of the alphabet ½, anything else 0. The prompts do
    not matter; they are taken because every scoring function is given them.
    """
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts do not fit {len(responses)} responses")
    return [_mean_character_score(response) for response in responses]


def _mean_character_score(response: str) -> float:
    if not response:
        return 0.0
    return sum(CHARACTER_SCORES.get(character, 0.0) for character in response) / len(response)
