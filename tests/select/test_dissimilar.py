import pytest
import torch
from random_pool import seeded

from activedpo_cli.select.methods import dissimilar
from activedpo_cli.select.methods.base import Candidates

TEXTS = ("the cat sat", "the cat sat.", "a dog ran away", "the cat", "", "the cat sat")


def candidates(pairs: list[tuple[int, int]], texts: tuple[str, ...] | None = TEXTS) -> Candidates:
    row_a, row_b = torch.tensor(pairs).T
    return Candidates(row_a=row_a, row_b=row_b, prompt_index=torch.arange(len(pairs)), texts=texts)


def test_the_least_alike_come_first() -> None:
    """Nothing shared; five of nine groups shared, three of them by hand: 1 − 5/9, 1 − 9/10; equal texts last."""
    found = dissimilar.choose(candidates([(0, 5), (1, 0), (0, 3), (2, 0)]), 4, dissimilar.Settings(), seeded())
    assert found.rows.tolist() == [3, 2, 1, 0]
    assert found.scores.tolist() == pytest.approx([1, 1 - 5 / 9, 1 - 9 / 10, 0])


def test_an_empty_response_differs_from_any_other() -> None:
    found = dissimilar.choose(candidates([(0, 1), (4, 0)]), 1, dissimilar.Settings(), seeded())
    assert found.rows.tolist() == [1]


def test_missing_texts_are_named() -> None:
    with pytest.raises(ValueError, match="texts"):
        dissimilar.choose(candidates([(0, 1)], None), 1, dissimilar.Settings(), seeded())
