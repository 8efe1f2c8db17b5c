"""The replies of a judge as an append-only log: every line may have been paid for, and is on the disk before it is used."""

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.regular_files import check_regular, read_limited, whole_lines_of
from activedpo_cli.store.files import append_line, write_bytes
from activedpo_cli.store.sealed_lines import WRONG, opened, sealed

REPLIES_NAME = "judge-replies.jsonl"
ANEW = "anew"
"""The event by which replies from elsewhere do not count, since somebody wanted the judge asked again."""


class ReplyLog:
    """The replies of one stage, or of all checks of a run, by what was asked.

    A line carries a sequence number and a checksum. A last line whose writing was interrupted was never used, and is cut
    before the next one is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()  # a judge is asked about several pairs at once
        self._forget()

    def _forget(self) -> None:
        self._replies: dict[str, list[Mapping[str, Any]]] = {}
        self._lines = 0
        self._bytes_read = 0
        self._begins_anew = False
        self._ends_torn = False

    def replies(self, key: str) -> Sequence[Mapping[str, Any]]:
        """The replies to a question, in the order in which they came."""
        with self._lock:
            self._look()
            return list(self._replies.get(key, ()))

    def by_key(self) -> dict[str, list[Mapping[str, Any]]]:
        """All replies by what was asked."""
        with self._lock:
            self._look()
            return {key: list(replies) for key, replies in self._replies.items()}

    @property
    def begins_anew(self) -> bool:
        """Whether replies from elsewhere do not count here."""
        with self._lock:
            self._look()
            return self._begins_anew

    def keep(self, key: str, reply: Mapping[str, Any]) -> None:
        """Add a reply, which is safe on the disk when this returns."""
        self._append({"event": "reply", "key": key, "reply": dict(reply)})

    def begin_anew(self) -> None:
        """Add that replies from elsewhere do not count here."""
        if not self.begins_anew:
            self._append({"event": ANEW})

    def _append(self, event: dict[str, Any]) -> None:
        with self._lock:
            self._look()
            if self._ends_torn:
                write_bytes(self.path, read_limited(self.path)[: self._bytes_read])
                self._ends_torn = False
            now = datetime.now(UTC).isoformat(timespec="seconds")
            append_line(self.path, sealed({"sequence": self._lines, "time": now, **event}))
            self._look()

    def _look(self) -> None:
        """Read lines that were added since the last look."""
        check_regular(self.path)
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < self._bytes_read:
            self._forget()
        if size > self._bytes_read:
            for line in whole_lines_of(self.path, self._bytes_read):
                self._take(line)
                self._lines += 1
                self._bytes_read += len(line) + 1
            self._ends_torn = size > self._bytes_read

    def _take(self, line: bytes) -> None:
        try:
            event = opened(line)
            if event["sequence"] != self._lines:
                raise ValueError(WRONG)
            if event["event"] == ANEW:
                self._begins_anew = True
            else:
                self._replies.setdefault(event["key"], []).append(event["reply"])
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise InvalidDataError(
                f"`{self.path}` line {self._lines + 1} is not an intact reply",
                details=[str(error)],
                hint=f"the other lines are intact; to do without the file, which makes the judge be asked again: mv "
                f"{self.path} {self.path}.damaged",
            ) from error
