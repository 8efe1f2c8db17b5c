"""Rows come back as they were, whatever their text holds."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.records import Prompt, Response
from activedpo_cli.store.jsonl import count_rows, encode_rows, read_json, read_rows, write_json, write_rows

ANY_TEXT = st.text(st.characters(blacklist_categories=()))


def response(text: str, number: int = 0) -> Response:
    return Response(
        response_id=f"p000000/i001/r{number}",
        prompt_id="p000000",
        prompt_token_ids=[1, 2],
        token_ids=[3],
        text=text,
        finish_reason="stop",
        scores={"rm": 0.1},
    )


@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
@example(["\u2028 \u2029 \x85 \x0c", "a\r\nb\n", "\ud800", '"\\', ""])
def test_rows_come_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    written = [response(text, number) for number, text in enumerate(texts)]
    write_rows(path, written)
    assert read_rows(path, Response) == written
    assert count_rows(path) == len(texts) == path.read_bytes().count(b"\n")
    path.read_bytes().decode("utf-8")


def test_no_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [])
    assert read_rows(tmp_path / "rows.jsonl", Response) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "Expecting"),
        (b"", "Expecting"),
        (b'{"prompt_id": "p", "split": "train"}', "prompt"),
        (b'{"prompt_id": "p", "split": "other", "prompt": "x"}', "split"),
        (b'{"prompt_id": 3, "split": "train", "prompt": "x"}', "prompt_id"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "prompts.jsonl"
    good = encode_rows([Prompt(prompt_id="p0", split="train", prompt="x")])
    path.write_bytes(good + line + b"\n" + good)
    with pytest.raises(InvalidDataError, match=r"prompts\.jsonl` line 2") as caught:
        read_rows(path, Prompt)
    assert reason in caught.value.details[0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataError, match=r"none\.jsonl` is missing"):
        read_rows(tmp_path / "none.jsonl", Prompt)
    with pytest.raises(InvalidDataError, match=r"none\.json` is missing"):
        read_json(tmp_path / "none.json")


def test_numbers_that_json_does_not_know_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())
