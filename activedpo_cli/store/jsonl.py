"""Typed rows in JSON Lines: UTF-8, one record a line, checked when read."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.regular_files import lines_of, read_limited
from activedpo_cli.store.files import write_bytes

Row = TypeVar("Row")


def encode_json(value: Any) -> bytes:
    """One line of JSON without its newline. Text that UTF-8 can't carry (lone surrogates) is written as escapes."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=True, allow_nan=False).encode("utf-8")


def encode_rows(rows: Iterable[Any]) -> bytes:
    """Dataclass records as JSON Lines, keys in the order of their fields."""
    return b"".join(encode_json(asdict(row)) + b"\n" for row in rows)


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    """Write dataclass records to a file in one step."""
    write_bytes(path, encode_rows(rows))


def read_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """The records of a file; raises InvalidDataError naming the file and line of the first that is not one."""
    adapter = _adapter(row_type)  # type: ignore[arg-type]
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            rows.append(adapter.validate_python(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise InvalidDataError(
                f"`{path}` line {number} is not a valid {row_type.__name__}", details=[_reason(error)]
            ) from error
    return rows


def read_json(path: Path) -> Any:
    """The value of a JSON file; raises InvalidDataError when there is none."""
    try:
        data = read_limited(path)
    except FileNotFoundError as error:
        raise InvalidDataError(f"`{path}` is missing") from error
    return parse_json(path, data)


def parse_json(path: Path, data: bytes) -> Any:
    """The value that these bytes of a file hold; raises InvalidDataError when they are no JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidDataError(f"`{path}` is not valid JSON", details=[str(error)]) from error


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, indented for people, in one step."""
    write_bytes(path, json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False).encode() + b"\n")


def count_rows(path: Path) -> int:
    """Lines of a JSON Lines file."""
    return sum(1 for _ in lines_of(path))


def _lines(path: Path) -> Iterator[bytes]:
    # Splitting bytes at the newline alone: str.splitlines() would also split at U+2028 inside a text.
    try:
        yield from lines_of(path)
    except FileNotFoundError as error:
        raise InvalidDataError(f"`{path}` is missing") from error


@cache
def _adapter(row_type: Any) -> TypeAdapter:
    return TypeAdapter(row_type)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error)
