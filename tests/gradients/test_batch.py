import pytest
import torch

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.gradients.batch import pad_responses


def test_right_padding_row_by_row() -> None:
    batch = pad_responses([[1, 2], [3]], [[4], [5, 6, 7]], 0, "cpu")
    assert batch.input_ids.tolist() == [[1, 2, 4, 0], [3, 5, 6, 7]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch.response_mask.int().tolist() == [[0, 0, 1, 0], [0, 1, 1, 1]]


def test_left_padding_row_by_row() -> None:
    batch = pad_responses([[1, 2], [3]], [[4], [5, 6, 7]], 0, "cpu", side="left")
    assert batch.input_ids.tolist() == [[0, 1, 2, 4], [3, 5, 6, 7]]
    assert batch.attention_mask.tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert batch.response_mask.int().tolist() == [[0, 0, 0, 1], [0, 1, 1, 1]]


def test_a_pad_token_within_the_response_still_counts() -> None:
    """Where the end-of-text token is also the pad token, masks go by position and not by id."""
    batch = pad_responses([[1], [1]], [[0], [2, 0]], 0, torch.device("cpu"))
    assert batch.attention_mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch.response_mask.int().tolist() == [[0, 1, 0], [0, 1, 1]]


def test_an_empty_response_is_all_prompt() -> None:
    batch = pad_responses([[1, 2]], [[]], 0, "cpu")
    assert batch.input_ids.tolist() == [[1, 2]]
    assert not batch.response_mask.any()


def test_what_can_not_be_padded() -> None:
    with pytest.raises(InvalidDataError, match="no tokens"):
        pad_responses([[1], []], [[1], [2]], 0, "cpu")
    with pytest.raises(ValueError, match="shorter"):
        pad_responses([[1]], [], 0, "cpu")
    with pytest.raises(ValueError, match="at least one"):
        pad_responses([], [], 0, "cpu")
