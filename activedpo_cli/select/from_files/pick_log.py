"""Picks of a long choice on the disk, so that an interrupted command goes on after them."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.store.files import append_line, remove, write_bytes

if TYPE_CHECKING:
    from activedpo_cli.select.design.greedy import Pick


class PickLog:
    """The picks so far, beside the output; worth something only to the very same command, which holds the output's lock."""

    def __init__(self, path: Path, record: Mapping[str, Any]) -> None:
        self.path = path
        self.seconds = 0.0
        """Picks are written no more often than this."""
        self._is_begun = False
        self._head = json.dumps({"choice": record}, sort_keys=True).encode() + b"\n"
        self._pending: list[bytes] = []
        self._written_at = 0.0

    def picks(self) -> "list[Pick]":
        """What was picked before an interruption; a log of another choice, or a damaged one, is thrown away."""
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]  # beyond it there is nothing, or a torn line
        found = _picks(whole[len(self._head) :]) if whole.startswith(self._head) else []
        if not found:
            self.remove()
            return []
        if len(whole) < len(data):
            write_bytes(self.path, whole)
        self._is_begun = True
        return found

    def kept(self) -> int:
        """Picks on the disk."""
        return max(0, self.path.read_bytes().count(b"\n") - 1) if self.path.exists() else 0

    def add(self, pick: "Pick") -> None:
        """Keep one more; the file begins with the first."""
        line = {"row": pick.row, "score": pick.score, "exactly": pick.exactly}
        self._pending.append(json.dumps(line).encode() + b"\n")
        if time.monotonic() - self._written_at >= self.seconds:
            self.flush()

    def flush(self) -> None:
        """Write what waits to be written."""
        lines, self._pending = self._pending, []
        if lines:
            append_line(self.path, (b"" if self._is_begun else self._head) + b"".join(lines))
            self._is_begun = True
            self._written_at = time.monotonic()

    def remove(self) -> None:
        """The choice is made, or begins anew."""
        remove(self.path)
        self._is_begun, self._pending = False, []


def _picks(text: bytes) -> "list[Pick]":
    """None at all where a line is damaged, or a row is there twice."""
    from activedpo_cli.select.design.greedy import Pick

    try:
        found = [Pick(**json.loads(line)) for line in text.splitlines()]
    except (ValueError, TypeError, RecursionError):
        return []
    is_sound = all(
        type(pick.row) is int and type(pick.score) is float and math.isfinite(pick.score) and type(pick.exactly) is bool
        for pick in found
    )
    return found if is_sound and len({pick.row for pick in found}) == len(found) else []
