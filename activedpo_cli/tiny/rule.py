"""The built-in task's own score of a story: how warm its words are, and that it does not say the same thing twice.

    score = ½ (1 + (warm − gloomy) / (warm + gloomy + 1)) · (different word pairs / word pairs)

`warm` and `gloomy` count the words of two lists. The rule needs no model and can be checked by eye. It judges neither
grammar nor sense. The built-in reward model was trained on preferences made with it, and evaluation asks it again, as a
second scorer. Used as `python:activedpo_cli.tiny.rule:score`.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

WARM = frozenset(
    """
    beautiful best better bright brave care cared cheered cheerful clean comfort cozy cuddled danced dear delicious delight
    delighted enjoyed excited exciting friend friendly friends fun funny gentle gently gift gifts giggled glad
    golden good grateful great happier happiest happily happy heart help helped helpful helping hope hug hugged hugs joy
    joyful kind kindly kindness kiss kissed laugh laughed laughing laughter love loved lovely loving lucky merry nice play
    played playing pleased pretty prize proud rainbow safe safely sang share shared sharing shiny sing singing smile smiled
    smiles smiling soft special sun sunny sunshine surprise sweet thank thanked thankful thanks together treasure warm
    welcome well wise won wonderful yummy
    """.split()  # noqa: SIM905 - a list of words reads better as text
)
"""Words that count as warm, in lower case."""

GLOOMY = frozenset(
    """
    afraid alone angry ashamed bad bitter bored broke broken burned cold cried cries cruel cry crying damaged
    danger dangerous dark died dirty disappointed empty fault fear fell fight fighting fought frightened frown frowned
    gloomy gone grumpy hate hated horrible howled hungry hurt hurts ill jealous kicked lied lonely lost mad mean mess
    messy mistake mud naughty nobody pain poor pushed ruined rude sad sadly scared scary scream screamed shouted sick
    sorry spilled stole stolen storm stuck stung stupid teased tears terrible thief thorns tired tore torn trembled trouble
    ugly unhappy unkind upset wet wolf worried worry worse worst wrong yelled
    """.split()  # noqa: SIM905 - a list of words reads better as text
)
"""Words that count as gloomy, in lower case."""


def score(prompts: Sequence[object], responses: Sequence[str]) -> list[float]:
    """One score for each response, between 0 (gloomy, or the same over and over) and 1 (warm and never twice the same).

    Without a word of either list it is ½ times the share of different word pairs; for an empty response it is 0. The
    prompts do not matter; they are taken because every scoring function is given them.
    """
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts do not fit {len(responses)} responses")
    return [_score(re.findall(r"[a-z']+", response.lower())) for response in responses]


def _score(words: Sequence[str]) -> float:
    if not words:
        return 0.0
    warm = sum(word in WARM for word in words)
    gloomy = sum(word in GLOOMY for word in words)
    pairs = list(pairwise(words))
    freshness = len(set(pairs)) / len(pairs) if pairs else 1.0
    return (1 + (warm - gloomy) / (warm + gloomy + 1)) / 2 * freshness
