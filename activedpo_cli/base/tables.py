"""Rows of the files that people bring: JSON lines, JSON, CSV, TSV, parquet and plain text.

Every row of a file is read or the file is refused with the line that is wrong; nothing is repaired or left out. Text is
UTF-8 (a byte-order mark is accepted) and lines end at LF or CRLF only, so that U+2028 inside a string stays text. A lone
surrogate, which JSON can spell but no UTF-8 file can hold, becomes U+FFFD, so that what is read can be stored again.
"""

import csv
import difflib
import gzip
import json
import math
import re
import reprlib
import shlex
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from activedpo_cli.base.columns import refuse_stored_structure
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.records import PromptText

LONGEST_LINE = 2**28
MOST_UNPACKED, MOST_TIMES_SMALLER = 2**28, 200
"""A packed file may unpack to MOST_UNPACKED bytes or to MOST_TIMES_SMALLER times its size, whichever is more.

Ordinary text unpacks to about ten times its size, a file that is built to fill the memory to a thousand times.
"""
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
EXCERPTS = reprlib.Repr()
EXCERPTS.maxstring = EXCERPTS.maxother = 60


@dataclass(frozen=True)
class Row:
    """One record of a table.

    `line` counts from 1: the line on which the record begins, or its position where the format has no lines (JSON
    lists, parquet). `origin` says so in words, such as `prompts.jsonl line 12`. CSV and TSV values are all text.
    """

    line: int
    values: dict[str, Any]
    origin: str


def read_table(path: Path) -> Iterator[Row]:
    """The rows of a file, in order; the format is told by the suffix (`TABLE_SUFFIXES`).

    Raises:
        InvalidDataError: the file is missing, empty, damaged or of an unknown kind; names the file and the line.

    """
    reader = READERS.get(_format_suffix(path))
    check_file(path)
    if reader is None:
        raise InvalidDataError(
            f"{path} has no suffix that says how to read it",
            details=[f"known: {', '.join(TABLE_SUFFIXES)}"],
        )
    return _with_read_errors(path, reader(path))


def is_table_path(name: str) -> bool:
    """Whether a name ends in one of the suffixes that `read_table` knows."""
    return _format_suffix(Path(name)) in READERS


class EmptyPromptError(InvalidDataError):
    """The prompt of a row has no text."""

    def __init__(self, origin: str) -> None:
        super().__init__(f"{origin}: the prompt is empty", hint="leave the row out, or give it a prompt")


def parse_prompt(value: Any, origin: str, column: str = "prompt") -> PromptText:
    """A prompt as it may stand in a file: text that is not blank, or messages with `role` and `content`.

    Raises InvalidDataError, naming `origin`, for anything else; EmptyPromptError where only the text is lacking.
    """
    if isinstance(value, str):
        if not value.strip():
            raise EmptyPromptError(origin)
        refuse_stored_structure(value, f"{origin}, {column}")
        return value
    if not isinstance(value, list):
        raise InvalidDataError(f"{origin}: a prompt is text or a list of messages, not {excerpt(value)}")
    messages = parse_messages(value, origin)
    if not any(message["content"].strip() for message in messages):
        raise EmptyPromptError(origin)
    return messages


def parse_messages(value: list[Any], origin: str) -> list[dict[str, str]]:
    """Messages with `role` and `content`, both text, and nothing else that the model would have to see.

    Further fields without a value are no part of a message: Arrow gives every message the fields of all others.

    Raises InvalidDataError, naming `origin`, otherwise.
    """
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            is_shared = isinstance(message, dict) and {"from", "value"} <= message.keys()
            raise InvalidDataError(
                f"{origin}: message {number} needs `role` and `content` only, not {excerpt(message)}",
                hint="write `role` for `from` (user for human, assistant for gpt) and `content` for `value`"
                if is_shared
                else None,
            )
        others = [name for name, part in message.items() if name not in ("role", "content") and part]
        if others:
            raise InvalidDataError(
                f"{origin}: message {number} needs `role` and `content` only, and has `{excerpt(others[0])[1:-1]}`",
                hint="the model would not see it; leave out rows with calls of tools, or write them into `content`",
            )
        if not all(isinstance(message[name], str) for name in ("role", "content")) or not message["role"]:
            raise InvalidDataError(f"{origin}: `role` and `content` of message {number} must be text")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def parse_shared_messages(chosen: Any, rejected: Any, origin: str) -> list[dict[str, str]]:
    """The prompt of a preference without one, TRL's implicit prompt: the messages before the last, equal in both.

    Raises InvalidDataError, naming `origin`, where these are no messages, differ, or hold no text.
    """
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise InvalidDataError(
            f"{origin} has no `prompt`",
            details=["only messages can hold the prompt inside `chosen` and `rejected`"],
            hint="TRL splits texts that begin alike: `dataset.map(trl.extract_prompt)` gives them a `prompt`",
        )
    if not chosen or not rejected or chosen[:-1] != rejected[:-1]:
        raise InvalidDataError(
            f"{origin}: `chosen` and `rejected` differ before their last message",
            hint="give the row a `prompt` of its own, or leave it out: the two are no answers to one prompt",
        )
    prompt = parse_prompt(chosen[:-1], origin)
    assert not isinstance(prompt, str)
    return prompt


def excerpt(value: Any) -> str:
    """A short form of a foreign value, however large or deep, that is safe to print."""
    return EXCERPTS.repr(value)


def check_file(path: Path) -> None:
    """Raise InvalidDataError, with the name that was probably meant, when there is no file at the path."""
    if path.is_dir():
        raise InvalidDataError(f"{path} is a folder, not a file")
    if path.exists():
        return
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    suggestion = f" — did you mean `{path.parent / close[0]}`?" if close else ""
    details = [] if path.parent.is_dir() else [f"there is no folder {path.parent} either"]
    raise InvalidDataError(f"there is no file {path}{suggestion}", details=details)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers from 1, and lines with their ends.

    Raises InvalidDataError that names the line for bytes that are not UTF-8, and for more than anybody means.
    """
    offset = 0
    for number, raw in enumerate(_raw_lines(path), start=1):
        start = 3 if number == 1 and raw.startswith(b"\xef\xbb\xbf") else 0
        try:
            yield number, raw[start:].decode("utf-8")
        except UnicodeDecodeError as error:
            at = offset + start + error.start
            raise InvalidDataError(
                f"{path.name} line {number} is not UTF-8: byte 0x{raw[start + error.start]:02x} at offset {at}",
                hint=f"iconv -f UTF-16 -t UTF-8 {shlex.quote(str(path))}"
                if raw[:2] in (b"\xff\xfe", b"\xfe\xff")
                else None,
            ) from error
        offset += len(raw)


def _raw_lines(path: Path) -> Iterator[bytes]:
    """Lines of a file, of which none may be endless, nor all of them together where they were packed."""
    is_packed = path.name.lower().endswith(".gz")
    most = max(MOST_UNPACKED, MOST_TIMES_SMALLER * path.stat().st_size) if is_packed else math.inf
    number = size = 0
    with _open_binary(path) as file:
        while raw := file.readline(LONGEST_LINE + 1):
            number, size = number + 1, size + len(raw)
            if size > most:
                raise InvalidDataError(
                    f"{path.name} unpacks to more than {MOST_TIMES_SMALLER} times its size", hint="unpack it first"
                )
            if len(raw) > LONGEST_LINE:
                raise InvalidDataError(f"{path.name} line {number} is longer than {LONGEST_LINE >> 20} MiB")
            yield raw


def _open_binary(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _format_suffix(path: Path) -> str:
    name = path.name.lower()
    stem, zipped = name.removesuffix(".gz"), name.endswith(".gz")
    suffix = Path(stem).suffix
    return "" if zipped and suffix == ".parquet" else suffix


def _with_read_errors(path: Path, rows: Iterable[Row]) -> Iterator[Row]:
    count = 0
    try:
        for row in rows:
            count += 1
            yield row
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InvalidDataError(f"{path} is not a whole gzip file: {error}") from error
    except OSError as error:
        raise InvalidDataError(f"{path} cannot be read: {error.strerror or error}") from error
    if count == 0:
        raise InvalidDataError(f"{path} holds no rows")


def _read_jsonl(path: Path) -> Iterator[Row]:
    for number, line in text_lines(path):
        if not line.strip(" \t\r\n"):
            continue
        origin = f"{path.name} line {number}"
        value = _parse_json(line.rstrip("\r\n"), origin)
        yield Row(number, _as_object(value, origin), origin)


def _read_json(path: Path) -> Iterator[Row]:
    text = "".join(line for _, line in text_lines(path))
    if not text.strip():
        return
    value = _parse_json(text, path.name)
    items = value.get("data") if isinstance(value, dict) else value
    if not isinstance(items, list):
        raise InvalidDataError(f'{path.name} must hold a list of objects, or {{"data": [...]}}, not {excerpt(value)}')
    for number, item in enumerate(items, start=1):
        origin = f"{path.name} item {number}"
        yield Row(number, _as_object(item, origin), origin)


def _parse_json(text: str, origin: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=with_each_name_once)
        return _without_lone_surrogates(value) if "\\u" in text else value
    except json.JSONDecodeError as error:
        around = text[max(0, error.pos - 20) : error.pos + 20].strip("\r\n")
        line = f" line {error.lineno}," if "\n" in text.rstrip("\n") else ","
        place = f"{origin}{line} column {error.colno}"
        raise InvalidDataError(f"{place} is not JSON: {error.msg}", details=[f"near {around!r}"]) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits; thousands of nested lists
        raise InvalidDataError(f"{origin} is JSON that cannot be read: {error}") from error


def with_each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; raises ValueError where a name repeats, whose first value would be lost."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        repeated = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"it names {excerpt(repeated)} twice")
    return fields


def _without_lone_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_lone_surrogates(key): _without_lone_surrogates(item) for key, item in value.items()}
    return value


def _as_object(value: Any, origin: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidDataError(f"{origin} is no object with named fields: {excerpt(value)}")
    return value


def _read_delimited(path: Path, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the library's own limit is shorter than a long response
    reader = csv.reader((line for _, line in text_lines(path)), delimiter=delimiter, strict=True)
    header: list[str] = []
    line = 1
    try:
        for fields in reader:
            line, start = reader.line_num + 1, line
            if not fields:
                continue
            origin = f"{path.name} line {start}"
            if not header:
                header = _checked_header(fields, origin)
            elif len(fields) != len(header):
                raise InvalidDataError(f"{origin} has {len(fields)} fields where the header has {len(header)}")
            else:
                yield Row(start, dict(zip(header, fields, strict=True)), origin)
    except csv.Error as error:
        raise InvalidDataError(f"{path.name} line {line} is no valid row: {error}") from error


def _checked_header(fields: list[str], origin: str) -> list[str]:
    repeated = {name for name in fields if fields.count(name) > 1}
    if repeated:
        raise InvalidDataError(f"{origin}: the header names {excerpt(sorted(repeated)[0])} twice")
    return fields


def _read_text(path: Path) -> Iterator[Row]:
    for number, line in text_lines(path):
        if line.strip():
            prompt = line.removesuffix("\n").removesuffix("\r")
            yield Row(number, {"prompt": prompt}, f"{path.name} line {number}")


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InvalidDataError(f"{path} needs pyarrow to be read", hint="pip install pyarrow") from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            _checked_header(file.schema_arrow.names, path.name)
            for batch in file.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, values, f"{path.name} row {number}")
    except InvalidDataError:
        raise
    except (pyarrow.ArrowException, ValueError, ArithmeticError, LookupError, TypeError) as error:
        first_line = str(error).partition("\n")[0]
        raise InvalidDataError(f"{path.name} is no valid parquet file after row {number}: {first_line}") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": lambda path: _read_delimited(path, ","),
    ".tsv": lambda path: _read_delimited(path, "\t"),
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
TABLE_SUFFIXES = (*READERS, *(f"{suffix}.gz" for suffix in READERS if suffix != ".parquet"))
"""Every suffix that `read_table` understands."""
