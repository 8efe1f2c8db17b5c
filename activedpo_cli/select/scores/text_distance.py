"""How different two texts look, without any model."""

from collections import Counter
from functools import lru_cache

GRAM = 3


def text_distance(first: str, second: str) -> float:
    """1 − Σ min(c, c′) / Σ max(c, c′) over the counts of groups of three characters: 0 for equal texts, at most 1.

    The Ruzicka distance, a Jaccard distance that counts repetitions. Characters rather than words, so that languages
    without spaces are served; a text of fewer than three is one group. O(length). Texts with equal groups in another
    order have distance 0.
    """
    a, b = _grams(first), _grams(second)
    if len(b) < len(a):
        a, b = b, a
    shared = sum(min(count, b[gram]) for gram, count in a.items() if gram in b)
    union = a.total() + b.total() - shared
    return 1 - shared / union if union else 0.0


@lru_cache(maxsize=256)
def _grams(text: str) -> Counter[str]:
    """Counts of groups; remembered, since the pairs of a prompt share their responses and follow each other."""
    if len(text) < GRAM:
        return Counter([text] if text else [])
    return Counter(map("".join, zip(*(text[start:] for start in range(GRAM)), strict=False)))
