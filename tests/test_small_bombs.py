"""A file that is small, or short to write, takes no memory or time without bound; a large one that means it is read."""

import gzip
import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exchanged_files import import_answers

from activedpo_cli.base import text_files
from activedpo_cli.base.config import parse_config
from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.records import Prompt
from activedpo_cli.base.tables import read_table
from activedpo_cli.base.tensor_rows import TensorRows
from activedpo_cli.base.yaml_text import read_yaml
from activedpo_cli.experiments.spec import read_spec
from activedpo_cli.store.jsonl import read_json, read_rows

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.fixture
def little_memory():
    """Fail where what is called takes more than 50 MB."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "more than 100000 values"),
        ("a: &a [*a]", "deep"),
        ("[" * 1000, "deep"),
        ("{a: " * 3000, "deep"),
        ("- " * 3000, "deep"),
        ("seed: 0x" + "f" * 5000, "too large"),
        ("seed: " + "9" * 5000, "4300 digits"),
        ("#" * 2**21, "longer than"),
    ],
    ids=["laughs", "loop", "lists", "maps", "items", "hexadecimal", "decimal", "long"],
)
def test_yaml(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as refusal:
        read_yaml(text)
    assert said in refusal.value.message
    with pytest.raises(UsageError, match="spec.yaml"):
        read_spec(str(path))


def test_aliases_are_never_written_out(little_memory: None) -> None:
    """Ten lines that would be ten thousand million words, also in what is said of them."""
    for text in (LAUGHS, f"{LAUGHS}select: *j", f"{LAUGHS}seed: [*j]"):
        with pytest.raises(UsageError) as refusal:
            parse_config(text)
        assert len(str(refusal.value)) < 1000


def test_aliases_as_people_use_them() -> None:
    assert read_yaml("a: &a {b: [1, 2]}\nc: *a\nd: {<<: *a, e: 3}") == {
        "a": {"b": [1, 2]}, "c": {"b": [1, 2]}, "d": {"b": [1, 2], "e": 3},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seeds": "0-999999999999"}, "100000 seeds"),
        ({"seeds": "9" * 5000}, "digits"),
        ({"seeds": "0-99999", "arms": ["random", "activedpo"]}, "100000 runs"),
        ({"grid": {f"select.a{n}": list(range(10)) for n in range(12)}}, "100000 runs"),
        ({"settings": {"select.budget": "hf_" + "a1" * 17}}, "token"),
    ],
)
def test_experiments(little_memory: None, tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps({"title": "t", "arms": ["random"], "seeds": "0-9"} | changed))
    with pytest.raises((InvalidDataError, UsageError)) as refusal:
        read_spec(str(path))
    assert "spec.yaml" in refusal.value.message
    assert said in " ".join([refusal.value.message, *refusal.value.details])


DEEP = b"[" * 100_000
READERS: dict[str, Callable[[Path], object]] = {
    "f.jsonl": lambda path: list(read_table(path)),
    "f.json": lambda path: list(read_table(path)),
    "rows.jsonl": lambda path: read_rows(path, Prompt),
    "value.json": read_json,
    "f.safetensors": lambda path: TensorRows(path, "features"),
    "answers.jsonl": lambda path: import_answers(path.read_bytes(), path.name, []),
}


@pytest.mark.parametrize("name", READERS)
def test_json_nested_deeply(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(struct.pack("<Q", len(DEEP)) + DEEP if name.endswith("safetensors") else DEEP)
    with pytest.raises(InvalidDataError, match=name):
        READERS[name](path)


@pytest.mark.parametrize("length", [2**60, 2**31, 99_999_999])
def test_a_header_longer_than_its_file(little_memory: None, tmp_path: Path, length: int) -> None:
    path = tmp_path / "f.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(InvalidDataError, match="f.safetensors"):
        TensorRows(path, "features")


def test_a_shape_larger_than_its_file(little_memory: None, tmp_path: Path) -> None:
    header = json.dumps({"features": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "f.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    with pytest.raises(InvalidDataError, match="another size than its shape"):
        TensorRows(path, "features")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".txt"])
@pytest.mark.parametrize("content", [b"\n", b" ", b"a,"], ids=["lines", "one line", "words"])
def test_what_unpacks_to_a_thousand_times_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, content: bytes
) -> None:
    monkeypatch.setattr(text_files, "MOST_UNPACKED", 2**16)
    monkeypatch.setattr(text_files, "LONGEST_LINE", 2**17)
    path = tmp_path / f"f{suffix}.gz"
    path.write_bytes(gzip.compress(content * 2**18))
    with pytest.raises(InvalidDataError, match=rf"f{suffix}.gz (unpacks to more than|line 1 is longer than)"):
        list(read_table(path))


def test_text_that_packs_well_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MOST_UNPACKED", 2**10)
    path = tmp_path / "f.jsonl.gz"
    rows = [{"prompt": f"Question {number}: what is {number} times {number + 3}?"} for number in range(2000)]
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    assert [row.values for row in read_table(path)] == rows


def long_lines(folder: Path, length: int) -> None:
    """Read one field of `length` bytes from each kind of table, and from rows of a run."""
    text = "a\u2028=" * (length // 5)
    row = json.dumps({"prompt": text}, ensure_ascii=False)
    quoted = f'prompt\n"{text}"\n'
    contents = {"f.jsonl": row, "f.json": f"[{row}]", "f.txt": text, "f.csv": quoted, "f.tsv": quoted}
    for name, content in contents.items():
        path = folder / name
        path.write_text(content, encoding="utf-8")
        assert [row.values["prompt"] for row in read_table(path)] == [text]
    rows = folder / "rows.jsonl"
    rows.write_text(json.dumps({"prompt_id": "p", "split": "train", "prompt": text}) + "\n")
    assert read_rows(rows, Prompt)[0].prompt == text


def test_lines_of_megabytes(tmp_path: Path) -> None:
    long_lines(tmp_path, 3 * 2**20)


@pytest.mark.slow
def test_lines_of_a_hundred_megabytes(tmp_path: Path) -> None:
    long_lines(tmp_path, 100 * 2**20)


def test_a_line_without_an_end(little_memory: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LONGEST_LINE", 2**20)
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n' + b"x" * 2**22)
    with pytest.raises(InvalidDataError, match="f.jsonl line 2 is longer than 1 MiB"):
        list(read_table(path))


@pytest.mark.parametrize("name", ["f.jsonl", "f.json"])
def test_a_name_that_stands_twice(tmp_path: Path, name: str) -> None:
    """The first value would be lost without a word."""
    path = tmp_path / name
    path.write_text('[{"prompt": "a", "prompt": "b"}]' if name == "f.json" else '{"prompt": "a", "prompt": "b"}\n')
    with pytest.raises(InvalidDataError, match=rf"{name}.*names 'prompt' twice"):
        list(read_table(path))


def test_a_column_that_stands_twice(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "f.parquet"
    parquet.write_table(
        pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], ["prompt", "prompt"]), path
    )
    with pytest.raises(InvalidDataError, match=r"f.parquet: the header names 'prompt' twice"):
        list(read_table(path))
