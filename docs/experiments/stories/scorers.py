"""Two sentiment lexicons, made by different people: VADER answers and scores, AFINN is the second scorer.

They need `pip install vaderSentiment afinn`.
"""

from collections.abc import Sequence

from afinn import Afinn
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

_vader = SentimentIntensityAnalyzer()
_afinn = Afinn()


def vader(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """VADER's compound sentiment, between −1 and 1."""
    return [float(_vader.polarity_scores(response)["compound"]) for response in responses]


def afinn(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """AFINN's sum of word values; unlike VADER's it has no bounds."""
    return [float(_afinn.score(response)) for response in responses]
