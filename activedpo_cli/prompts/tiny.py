"""Beginnings of short English sentences, built in; no network needed.

They are every combination of a subject and an opening, for the tiny task that shows and tests the whole loop.
"""

from collections.abc import Iterator

from activedpo_cli.prompts.base import SourcePrompt
from activedpo_cli.settings import PromptSettings

SUBJECTS = (
    "the old gardener",
    "a small brown dog",
    "my youngest sister",
    "the baker",
    "every morning train",
    "the quiet river",
    "our new teacher",
    "a tired sailor",
    "the red kite",
    "my neighbour",
    "the night watchman",
    "a curious cat",
    "the village choir",
    "an honest merchant",
    "the first snow",
    "a clever fox",
    "the blue house",
    "my grandfather",
    "the tall lighthouse",
    "a hungry bear",
)
OPENINGS = (
    "Once upon a time {} wanted",
    "In the early spring {} began",
    "Nobody knew why {} stopped",
    "Last summer {} found",
    "Before the storm {} went",
    "After a long silence {} said",
    "It was late when {} came",
    "On the way home {} saw",
    "For many years {} had",
    "Without a word {} turned",
    "In the middle of the town {} stood",
    "At the edge of the forest {} waited",
    "To everyone's surprise {} asked",
    "When the bell rang {} looked",
    "Far from the sea {} remembered",
    "Under the bright moon {} sang",
    "Every other day {} brought",
    "Because of the rain {} stayed",
    "Soon after breakfast {} opened",
    "With great care {} carried",
)


def read(settings: PromptSettings) -> Iterator[SourcePrompt]:
    """400 sentence beginnings, the same on every machine; no setting changes them."""
    for opening in OPENINGS:
        for subject in SUBJECTS:
            prompt = opening.format(subject)
            yield SourcePrompt(prompt=prompt, origin=f"built-in prompt {prompt!r}")
