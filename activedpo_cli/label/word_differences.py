"""Which words of two responses differ: shown on request, in a terminal and on a page, where the two are much alike."""

import re
from difflib import SequenceMatcher

MOST_WORDS = 3000
"""Of a response; comparing two that are longer would keep a person waiting for more than a second."""
LEAST_ALIKE = 0.5
"""Below this share of common words nearly everything would be marked, which says nothing."""

Spans = list[tuple[int, int]]
Marked = list[tuple[str, bool]]
"""A text in pieces, each with whether it differs."""


def differing_words(first: str, second: str) -> tuple[Spans, Spans] | None:
    """From where to where each text differs from the other, in whole words; None where they are too unlike or too long."""
    words = [list(re.finditer(r"\S+", text)) for text in (first, second)]
    if max(map(len, words)) > MOST_WORDS:
        return None
    of_first, of_second = ([word[0] for word in side] for side in words)
    matcher = SequenceMatcher(None, of_first, of_second)
    if matcher.real_quick_ratio() < LEAST_ALIKE or matcher.quick_ratio() < LEAST_ALIKE or matcher.ratio() < LEAST_ALIKE:
        return None
    found: tuple[Spans, Spans] = ([], [])
    for kind, *places in matcher.get_opcodes():
        if kind == "equal":
            continue
        for side, begin, end in ((0, *places[:2]), (1, *places[2:])):
            if begin < end:
                found[side].append((words[side][begin].start(), words[side][end - 1].end()))
    return found


def marked_words(first: str, second: str) -> tuple[Marked, Marked] | str:
    """Both texts in pieces, or in words why no differences are shown."""
    spans = differing_words(first, second)
    if spans is not None:
        return _pieces(first, spans[0]), _pieces(second, spans[1])
    if max(len(text.split()) for text in (first, second)) > MOST_WORDS:
        return f"differences are shown up to {MOST_WORDS:,} words"
    return "the responses have too little in common to mark what differs"


def _pieces(text: str, spans: Spans) -> Marked:
    found, done = [], 0
    for begin, end in spans:
        found += [(text[done:begin], False), (text[begin:end], True)]
        done = end
    return [(piece, differs) for piece, differs in [*found, (text[done:], False)] if piece]
