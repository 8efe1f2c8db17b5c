"""Which responses to one prompt may form pairs, and the pairs they form."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import TypeVar

One = TypeVar("One")


def usable_indices(texts: Sequence[str], truncated: Sequence[bool], drop_truncated: bool) -> list[int]:
    """Indices of the responses to ONE prompt that a person could tell apart and judge.

    Left out: responses without visible text, truncated ones if `drop_truncated`, and every later copy of a text among
    what remains.
    """
    seen: set[str] = set()
    usable = []
    for index, (text, is_truncated) in enumerate(zip(texts, truncated, strict=True)):
        if not text.strip() or (drop_truncated and is_truncated) or text in seen:
            continue
        seen.add(text)
        usable.append(index)
    return usable


def times_sampled(texts: Sequence[str], truncated: Sequence[bool], drop_truncated: bool) -> list[int]:
    """How often the text of each of the `usable_indices` stands among the responses to ONE prompt, itself included."""
    counts = Counter(
        text for text, is_truncated in zip(texts, truncated, strict=True) if not (drop_truncated and is_truncated)
    )
    return [counts[texts[index]] for index in usable_indices(texts, truncated, drop_truncated)]


def all_pairs(responses: Iterable[One]) -> list[tuple[One, One]]:
    """All C(m, 2) pairs of m responses, given by index or by name, in their order."""
    return list(combinations(responses, 2))
