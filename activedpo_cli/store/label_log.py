"""The answers of a stage as an append-only log: every line was paid for, none is ever rewritten.

A line is one event: a label, or the retraction of one. It carries a sequence number and a checksum, and is on the disk
before `append` returns. Taking an answer back adds a line.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.interruption import raise_if_requested
from activedpo_cli.base.records import Label
from activedpo_cli.store.files import append_line, write_bytes
from activedpo_cli.store.jsonl import encode_json

TORN_NAMES = ("labels.torn", *(f"labels.torn-{number}" for number in range(2, 10)))
"""Where the bytes of interrupted lines are kept."""


class LabelLog:
    """The labels of one stage, in the order in which they were given."""

    def __init__(self, path: Path, now: Callable[[], str] | None = None) -> None:
        self.path = path
        self._now = now or (lambda: datetime.now(UTC).isoformat(timespec="seconds"))
        self._length: int | None = None

    def labels(self) -> dict[str, Label]:
        """The label that stands for each pair, by pair id: the last one given and not taken back."""
        standing: dict[str, Label] = {}
        for event in self._events():
            if event["event"] == "label":
                standing[event["label"]["pair_id"]] = Label(**event["label"])
            else:
                standing.pop(event["pair_id"], None)
        return standing

    def append(self, label: Label) -> None:
        """Record an answer; it is safe on the disk when this returns."""
        self._append({"event": "label", "label": asdict(label)})

    def retract(self, pair_id: str) -> None:
        """Take the standing answer of a pair back; both stay in the log."""
        self._append({"event": "retract", "pair_id": pair_id})

    def repair(self) -> int:
        """Cut a last line that was never acknowledged because its writing was interrupted; returns its bytes.

        The bytes are kept in a file beside the log. Without this, the next line would be glued to the torn one.
        """
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        torn = data[len(whole) :]
        if torn:
            free = (self.path.with_name(name) for name in TORN_NAMES)
            kept = next((path for path in free if not path.exists()), self.path.with_name(TORN_NAMES[-1]))
            write_bytes(kept, torn)
            write_bytes(self.path, whole)
        return len(torn)

    def _append(self, event: dict[str, Any]) -> None:
        raise_if_requested()  # else a scorer that caught the exception would have its makeshift bought
        if self._length is None:
            self._length = len(self._events())
        body = {"sequence": self._length, "time": self._now(), **event}
        append_line(self.path, encode_json({**body, "crc32": _checksum(body)}) + b"\n")
        self._length += 1

    def _events(self) -> list[dict[str, Any]]:
        data = self.path.read_bytes() if self.path.exists() else b""
        lines = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]
        return [self._parse(number, line) for number, line in enumerate(lines)]

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            event = json.loads(line)
            checksum = event.pop("crc32")
            if checksum != _checksum(event) or event["sequence"] != number:
                raise ValueError("its checksum or sequence number is wrong")
            return event
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise InvalidDataError(
                f"`{self.path}` line {number + 1} is not an intact label",
                details=[str(error)],
                hint=f"the other lines are intact; look at the file before you do anything: {self.path}",
            ) from error


def _checksum(event: dict[str, Any]) -> int:
    return zlib.crc32(encode_json(event))
