"""The answer of a row is the same to the pool and to *sft*, whatever stands beside it."""

import json
from pathlib import Path
from typing import Any

import pytest

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.generate.backends._recorded import read_recorded
from activedpo_cli.train.sft_data import read_sft_rows


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["completion", "response"])
def test_text_beside_an_answer_is_no_answer(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "rows.jsonl", {"text": "p a", "prompt": "p", name: "a"})
    (prompt,) = read_recorded(path)
    assert [response.text for response in prompt.responses] == ["a"]
    assert [row.text for row in read_sft_rows(path)] == ["a"]


@pytest.mark.parametrize("read", [read_recorded, read_sft_rows])
def test_two_different_answers_are_refused_and_named(tmp_path: Path, read: Any) -> None:
    path = written(tmp_path / "rows.jsonl", {"prompt": "p", "response": "a", "completion": "b"})
    with pytest.raises(InvalidDataError, match="line 1: `completion` and `response` hold different answers"):
        read(path)


def test_an_answer_that_stands_twice_is_read_once(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", {"prompt": "p", "response": "a", "completion": "a"})
    (prompt,) = read_recorded(path)
    assert [response.text for response in prompt.responses] == ["a"]
    assert [row.text for row in read_sft_rows(path)] == ["a"]
