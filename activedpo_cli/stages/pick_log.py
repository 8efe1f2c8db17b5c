"""Picks of a long choice on the disk, so that an interrupted command goes on after them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from activedpo_cli.artifacts.files import append_line


class PickLog:
    """Rows and scores picked so far, beside the output; worth something only to the very same command."""

    def __init__(self, path: Path, record: Mapping[str, Any]) -> None:
        self._path = path
        self._head = json.dumps({"choice": record}, sort_keys=True).encode()

    def picks(self) -> list[tuple[int, float]]:
        """What was picked before an interruption; a log of another choice is begun anew."""
        lines = self._path.read_bytes().split(b"\n") if self._path.exists() else []
        if not lines or lines[0] != self._head or len(lines) == 1:
            self._path.unlink(missing_ok=True)
            append_line(self._path, self._head + b"\n")
            return []
        whole = [json.loads(line) for line in lines[1:-1]]  # after the last line's end there is nothing, or a torn line
        if lines[-1]:
            self._path.write_bytes(b"".join(line + b"\n" for line in lines[:-1]))
        return [(pick["row"], pick["score"]) for pick in whole]

    def add(self, row: int, score: float) -> None:
        """Keep one more."""
        append_line(self._path, json.dumps({"row": row, "score": score}).encode() + b"\n")

    def remove(self) -> None:
        """The choice is made."""
        self._path.unlink(missing_ok=True)
