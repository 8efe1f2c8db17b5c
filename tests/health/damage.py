"""Damage files of a run as disks, editors and people do, and take it back."""

import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from command_line import done

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "cut in half": lambda data: data[: len(data) // 2],
    "without its last byte": lambda data: data[:-1],
    "a bit flipped": lambda data: flipped(data, len(data) * 5),
    "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "carriage returns": lambda data: data.replace(b"\n", b"\r\n"),
    "garbage in the middle": lambda data: data[: len(data) // 2] + b"\n\x00\xff garbage\n" + data[len(data) // 2 :],
}


def flipped(data: bytes, bit: int) -> bytes:
    """The same bytes with one bit turned round."""
    place, number = divmod(bit % (8 * len(data)), 8)
    return data[:place] + bytes([data[place] ^ 1 << number]) + data[place + 1 :]


@contextmanager
def holding(path: Path, content: bytes) -> Iterator[None]:
    """Let a file hold something else for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def repair(command: str) -> None:
    """Type a command that was named as a repair."""
    for part in command.split(" && "):
        words = shlex.split(part, comments=True)
        if words[0] == "activedpo":
            done(*words[1:])
        else:
            subprocess.run(words, check=True)
