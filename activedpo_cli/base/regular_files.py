"""Reading files of which only regular ones of a sensible size are meant: no pipe, which never ends, and no device.

Whoever opens a pipe waits until somebody writes into it, and a sparse file of gigabytes takes no disk and fills the memory.
"""

import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from itertools import takewhile
from pathlib import Path

from activedpo_cli.base.errors import InvalidDataError

LARGEST_RECORD = 2**28
"""Bytes of a file that is read as a whole; the largest ones, of which a report is made, have a few millions."""
LONGEST_LINE = 2**28
MORE_AT_ONCE = 2**16
"""Bytes asked for at a time of what a file has grown by since it was opened."""
IN_ITS_PLACE = "put the file itself in its place, or a copy of it"
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading, without waiting for anybody.

    Raises InvalidDataError where it is no regular file, and OSError where it can't be opened.
    """
    return os.fdopen(_open_regular(path)[0], "rb")


def _open_regular(path: Path) -> tuple[int, int]:
    """A descriptor for reading, and the size of the file."""
    check_regular(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        facts = os.fstat(descriptor)
        _require_regular(path, facts.st_mode)  # another may lie there by now
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, facts.st_size


def check_regular(path: Path, hint: str = IN_ITS_PLACE) -> None:
    """Raise InvalidDataError where something lies at the path that is no regular file; libraries would wait for it."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    _require_regular(path, mode, hint)


def read_limited(path: Path, most: int = LARGEST_RECORD) -> bytes:
    """The bytes of a file.

    Raises InvalidDataError where it is no regular file or larger than `most`, and OSError where it can't be read.
    """
    descriptor, size = _open_regular(path)
    try:
        data = b"" if size > most else _read_to_end(descriptor, size, most)
        size = max(size, len(data))
    finally:
        os.close(descriptor)
    if size > most:
        raise InvalidDataError(
            f"`{path}` has {size:,} bytes, and a file of its kind at most {most:,}",
            hint="it is not what was written there; put a copy of it back",
        )
    return data


def _read_to_end(descriptor: int, size: int, most: int) -> bytes:
    """The bytes of a file that had this size when it was opened, at most one more than `most` where it grows meanwhile.

    A buffer of `most` bytes, which the system would have to clear each time, is never asked for.
    """
    data = os.read(descriptor, size + 1)
    while len(data) <= most and (more := os.read(descriptor, min(MORE_AT_ONCE, most + 1 - len(data)))):
        data += more
    return data


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file without their newlines, one at a time.

    Raises InvalidDataError where it is no regular file or a line is endless, and OSError where it can't be read.
    """
    return (line.removesuffix(b"\n") for line in _raw_lines(path, 0))


def whole_lines_of(path: Path, start: int) -> Iterator[bytes]:
    """The same from a byte on, up to a line that has no newline yet, though another process may add the rest meanwhile."""
    whole = takewhile(lambda line: line.endswith(b"\n"), _raw_lines(path, start))
    return (line[:-1] for line in whole)


def _raw_lines(path: Path, start: int) -> Iterator[bytes]:
    with open_regular(path) as stream:
        stream.seek(start)
        number = 0
        while line := stream.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise InvalidDataError(
                    f"`{path}` line {number} has more than {LONGEST_LINE:,} bytes",
                    hint="it is not what was written there; put a copy of it back",
                )
            yield line


def _require_regular(path: Path, mode: int, hint: str = IN_ITS_PLACE) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise InvalidDataError(f"`{path}` is {kind}, and no regular file", hint=hint)
