"""Text of the files that people bring, line by line: what it is packed in, how it is encoded, and how much of it is read.

Text is UTF-8, with or without a byte-order mark, or UTF-16 with one, as spreadsheets save it.
"""

import gzip
import io
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.regular_files import LONGEST_LINE

MOST_UNPACKED, MOST_TIMES_SMALLER = 2**28, 200
"""A packed file may unpack to MOST_UNPACKED bytes or to MOST_TIMES_SMALLER times its size, whichever is more.

Ordinary text unpacks to about ten times its size, a file that is built to fill the memory to a thousand times.
"""
LONE_RETURN = re.compile(r"\r(?!\n)")
PIECE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
UTF_8_MARK, UTF_16_MARKS, UTF_32_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff"), (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
NO_TEXT = {
    b"PK\x03\x04": ("a spreadsheet or another zip file", "save the table as `CSV UTF-8`, or unpack it"),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet of an old kind", "save it as `CSV UTF-8`"),
    b"PAR1": ("a parquet file", "give it the suffix `.parquet`"),
    b"\x1f\x8b": ("packed with gzip", "let its name end in `.gz`"),
    b"BZh": ("packed with bzip2", "unpack it first"),
    b"\xfd7zXZ": ("packed with xz", "unpack it first"),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", "unpack it first"),
}
"""How files begin that are no text, whatever their suffix says: what they are, and the way out."""


@dataclass(frozen=True)
class Source:
    """Bytes to read: the file's name, its path, and its size in bytes."""

    name: str
    path: str
    size: int
    open: Callable[[], BinaryIO]

    @property
    def is_packed(self) -> bool:
        """Whether the name says that it is packed with gzip."""
        return self.name.lower().endswith(".gz")


def source_of_file(path: Path) -> Source:
    """The file at a path, which must be there; raises OSError."""
    return Source(path.name, str(path), path.stat().st_size, lambda: path.open("rb"))


def source_of_bytes(data: bytes, name: str) -> Source:
    """Bytes that were read already from the file `name`."""
    return Source(name, name, len(data), lambda: io.BytesIO(data))


def text_lines(source: Source) -> Iterator[tuple[int, str]]:
    """Line numbers from 1, and lines with their ends, which are LF or CRLF, so that U+2028 inside a string stays text.

    Raises InvalidDataError that names the line for what is no text, and for more than anybody means.
    """
    with _opened(source) as stream:
        start = _start(stream)
        _refuse_no_text(start, source)
        if start.startswith(UTF_16_MARKS):
            yield from _utf_16_lines(stream, source)
        else:
            yield from _utf_8_lines(stream, source)


def split_at_returns(lines: Iterable[tuple[int, str]], *, alone: bool) -> Iterator[tuple[int, str]]:
    """The same lines; ended at CR too, and counted anew, in a file of an old spreadsheet: the first end of a line is one.

    With `alone` only where the file has no other ends.
    """
    rest = iter(lines)
    for number, first in rest:
        if not LONE_RETURN.search(first) or (alone and first.endswith("\n")):
            yield number, first
            yield from rest
            return
        yield from enumerate((piece for _, line in chain([(number, first)], rest) for piece in PIECE.findall(line)), 1)


@contextmanager
def _opened(source: Source) -> Iterator[io.BufferedReader]:
    with ExitStack() as opened:
        stream: Any = opened.enter_context(source.open())
        if source.is_packed:
            stream = opened.enter_context(gzip.GzipFile(fileobj=stream))
        yield opened.enter_context(io.BufferedReader(stream))


def _start(stream: io.BufferedReader) -> bytes:
    """The first bytes, which are read again afterwards."""
    return stream.peek(8)[:8]


def _refuse_no_text(start: bytes, source: Source) -> None:
    for beginning, (what, mend) in NO_TEXT.items():
        if start.startswith(beginning):
            raise InvalidDataError(f"{source.name} is {what}, not text", hint=mend)
    if start.startswith(UTF_32_MARKS):
        raise _encoded_as("UTF-32", source)
    if len(start) >= 4 and start[:4].count(0) == 2 and start[0:2].count(0) == 1 and start[2:4].count(0) == 1:
        raise _encoded_as("UTF-16LE" if start[1] == 0 else "UTF-16BE", source)


def _encoded_as(encoding: str, source: Source) -> InvalidDataError:
    return InvalidDataError(
        f"{source.name} line 1 is not UTF-8, it looks like {encoding}",
        hint=f"iconv -f {encoding} -t UTF-8 {shlex.quote(source.path)}",
    )


def _utf_8_lines(stream: io.BufferedReader, source: Source) -> Iterator[tuple[int, str]]:
    offset = number = 0
    while raw := stream.readline(LONGEST_LINE + 1):
        number += 1
        _refuse_too_much(source, number, len(raw), offset + len(raw))
        start = len(UTF_8_MARK) if number == 1 and raw.startswith(UTF_8_MARK) else 0
        try:
            line = raw[start:].decode("utf-8")
        except UnicodeDecodeError as error:
            at = start + error.start
            raise InvalidDataError(
                f"{source.name} line {number} is not UTF-8: byte 0x{raw[at]:02x} at offset {offset + at}",
                hint=f"in a spreadsheet, save as `CSV UTF-8`; or: iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(source.path)}",
            ) from error
        offset += len(raw)
        yield number, line


def _utf_16_lines(stream: io.BufferedReader, source: Source) -> Iterator[tuple[int, str]]:
    text = io.TextIOWrapper(stream, encoding="utf-16", newline="\n")
    read = number = 0
    try:
        while line := text.readline(LONGEST_LINE + 1):
            number, read = number + 1, read + 2 * len(line)
            _refuse_too_much(source, number, len(line), read)
            yield number, line
    except UnicodeError as error:
        raise InvalidDataError(f"{source.name} is no valid UTF-16 after line {number}: {error}") from error


def _refuse_too_much(source: Source, number: int, length: int, read: int) -> None:
    """No line may be endless, nor all of them together where they were packed."""
    if source.is_packed and read > max(MOST_UNPACKED, MOST_TIMES_SMALLER * source.size):
        raise InvalidDataError(
            f"{source.name} unpacks to more than {MOST_TIMES_SMALLER} times its size", hint="unpack it first"
        )
    if length > LONGEST_LINE:
        raise InvalidDataError(f"{source.name} line {number} is longer than {LONGEST_LINE >> 20} MiB")
