"""A file that a setting names is known by its bytes, and by the record of the work made from it once it is gone."""

import hashlib
from pathlib import Path

import pytest

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.looking_once import looking_once
from activedpo_cli.engine.differences import digest_of_known
from activedpo_cli.store.manifest import Started

KEY, NAME = "sft.data", "data"


def record(path: Path, inputs: dict[str, str]) -> Started:
    return Started.model_construct(settings={KEY: str(path)}, inputs=inputs)


def test_a_file_that_is_there_or_gone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("one\n")
    made = record(path, {NAME: "sha256:recorded"})
    assert digest_of_known(made, KEY, NAME, str(path)) == "sha256:" + hashlib.sha256(b"one\n").hexdigest()
    path.unlink()
    assert digest_of_known(made, KEY, NAME, str(path)) == "sha256:recorded"
    for other in (None, record(tmp_path / "other.jsonl", made.inputs), record(path, {})):
        with pytest.raises(InvalidDataError, match="there is no file"):
            digest_of_known(other, KEY, NAME, str(path))


def test_a_look_reads_the_file_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("one\n")
    with looking_once():
        first = digest_of_known(None, KEY, NAME, str(path))
        path.write_text("two\n")
        assert digest_of_known(None, KEY, NAME, str(path)) == first
    assert digest_of_known(None, KEY, NAME, str(path)) != first
