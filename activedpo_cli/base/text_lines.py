"""Lines of the text files that people bring, packed by gzip or not: UTF-8, split at LF alone, none of them endless."""

import gzip
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from activedpo_cli.base.errors import InvalidDataError

LONGEST_LINE = 2**28
MOST_UNPACKED, MOST_TIMES_SMALLER = 2**28, 200
"""Text packs to a tenth, and a file that is built to fill the memory to a thousandth; up to the first size any may."""


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
