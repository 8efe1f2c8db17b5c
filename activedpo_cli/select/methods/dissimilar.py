"""The pairs whose two responses differ most as text; a control without any model.

The distance is 1 − Σ min(c, c′) / Σ max(c, c′) over the counts c of groups of three characters: equal texts have 0,
texts without a common group 1. What a method on gradients gains over this one, reading alone does not give.

Source: none, a control of this project; the distance is Ruzicka's. Score: the distance, from 0 to 1.
Cost: O(characters of all candidates).
"""

from collections import Counter
from functools import lru_cache

import torch
from torch import Tensor

from activedpo_cli.base.settings import Section
from activedpo_cli.base.shapes import Float
from activedpo_cli.select.methods.base import Candidates, best_by

GRAM = 3
NEEDS: tuple[str, ...] = ("texts",)


class Settings(Section):
    """There is nothing to set."""


def scores(candidates: Candidates, settings: Settings) -> Float[Tensor, " pairs"]:
    """How different both texts of each pair are."""
    texts = candidates.texts
    if texts is None:
        raise ValueError("these candidates have no texts")
    pairs = zip(candidates.row_a.tolist(), candidates.row_b.tolist(), strict=True)
    return torch.tensor([text_distance(texts[a], texts[b]) for a, b in pairs], dtype=torch.float64)


choose = best_by(scores)


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
