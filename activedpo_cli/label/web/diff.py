"""Which words of two responses differ, for a page that marks them."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

LONGEST = 3000
"""Words a side; twice as many take four times as long."""
LEAST_ALIKE = 0.5
"""Responses that were sampled on their own differ everywhere, and marks on every word tell nothing."""

Marked = list[tuple[str, bool]]
"""A text in pieces, each with whether it differs."""

_WORD = re.compile(r"\s*\S+|\s+")


def marked_words(first: str, second: str) -> tuple[Marked, Marked] | str:
    """Both texts in pieces, or why no differences are shown. A word brings the space before it, which is not compared."""
    words = [_WORD.findall(text) for text in (first, second)]
    if max(map(len, words)) > LONGEST:
        return f"differences are shown up to {LONGEST:,} words"
    matcher = SequenceMatcher(None, [word.strip() for word in words[0]], [word.strip() for word in words[1]])
    if matcher.ratio() < LEAST_ALIKE:
        return "the responses have too little in common to mark what differs"
    pieces: tuple[Marked, Marked] = ([], [])
    for operation, begin, end, other_begin, other_end in matcher.get_opcodes():
        for side, part in zip(pieces, (words[0][begin:end], words[1][other_begin:other_end]), strict=True):
            _add(side, part, operation != "equal")
    return pieces


def _add(side: Marked, words: Sequence[str], differs: bool) -> None:
    text = "".join(words)
    space = len(text) - len(text.lstrip()) if differs else 0
    side.extend((piece, marks) for piece, marks in ((text[:space], False), (text[space:], differs)) if piece)
