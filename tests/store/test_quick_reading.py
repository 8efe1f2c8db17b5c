"""What is read in the quick way is what the plain ways read."""

import json
import random
import struct
import tracemalloc
from pathlib import Path, PurePosixPath

import pytest

from activedpo_cli.base import regular_files
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.store.links import is_inside
from activedpo_cli.store.manifest import MANIFEST_NAME, SCHEMA, Manifest, read_manifest
from activedpo_cli.store.stage_folder import StageFolder

RECORD = {
    "schema": 1,
    "stage": "train",
    "stage_version": 3,
    "iteration": 2,
    "settings": {},
    "inputs": {},
    "outputs": {},
}


def test_reading_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"small")
    tracemalloc.start()
    try:
        assert read_limited(tmp_path / "file") == b"small"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("grows_by", [1, 5, 5000])
def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grows_by: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    open_regular = regular_files._open_regular

    def grown(path: Path) -> tuple[int, int]:
        opened = open_regular(path)
        path.write_bytes(b"x" * (100 + grows_by))
        return opened

    monkeypatch.setattr(regular_files, "_open_regular", grown)
    assert read_limited(path) == b"x" * (100 + grows_by)
    with pytest.raises(InvalidDataError, match="at most 4,000" if grows_by > 4000 else "at most 100"):
        read_limited(path, 4000 if grows_by > 4000 else 100)


@pytest.mark.parametrize(
    "name",
    ["a", "a/b", "./a", "a//b", "", ".", "./", "/", "/a", "..", "a/..", "a/../b", "..a", "a\0b", "a/", "//a", "..."],
)
def test_names_that_stay_inside_are_those_of_the_library_of_paths(name: str) -> None:
    path = PurePosixPath(name)
    assert is_inside(name) == (
        bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name
    )


def test_numbers_and_texts_of_a_record_are_read_as_python_reads_them(tmp_path: Path) -> None:
    draw = random.Random(0)
    numbers = [struct.unpack("<d", draw.randbytes(8))[0] for _ in range(300)]
    values = {
        "numbers": [number for number in numbers if number == number],
        "large": [2**63, -(2**70), 10**30],
        "no number": [float("inf"), -float("inf")],
        "texts": ["é", "\u2028", "\U0001f600", "\0", '"'],
        "half a pair": "\ud800",
    }
    for name, value in values.items():
        text = json.dumps({**RECORD, "summary": {name: value}})
        (tmp_path / MANIFEST_NAME).write_text(text)
        assert read_manifest(tmp_path) == Manifest.model_validate(json.loads(text)), name
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / MANIFEST_NAME).write_bytes(json.dumps(RECORD).encode(encoding))
        assert read_manifest(tmp_path) == Manifest.model_validate(RECORD)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
        ("[]", "is damaged"),
        (json.dumps({**RECORD, "iteration": "two"}), "is damaged"),
        (json.dumps({**RECORD, "more": 1}), "is damaged"),
        (json.dumps({**RECORD, "schema": SCHEMA + 1}), "newer version"),
        (json.dumps({**RECORD, "schema": SCHEMA + 1, "more": 1}), "newer version"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(text)
    with pytest.raises(InvalidDataError, match=said):
        read_manifest(tmp_path)


def test_outputs_that_are_no_files_of_their_size_are_missing(tmp_path: Path) -> None:
    listed = {name: {"sha256": "0", "bytes": 4} for name in ("whole", "short", "gone", "whole/below", "folder")}
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({**RECORD, "outputs": listed}))
    (tmp_path / "whole").write_bytes(b"1234")
    (tmp_path / "short").write_bytes(b"123")
    (tmp_path / "folder").mkdir()
    assert StageFolder(tmp_path).missing_outputs() == ["short", "gone", "whole/below", "folder"]
