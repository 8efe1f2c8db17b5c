"""The replies of a judge as an append-only log: every line may have been paid for, and is on the disk before it is used.

That a call is made is noted before, with what it may cost: a call whose reply never came, or came to a process that was
killed, may have to be paid too.
"""

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.records import Spent
from activedpo_cli.base.regular_files import check_regular, read_limited, whole_lines_of
from activedpo_cli.store.files import append_line, remove, write_bytes
from activedpo_cli.store.sealed_lines import WRONG, opened, sealed

REPLIES_NAME = "judge-replies.jsonl"
REPLY, SENT, UNTAKEN = "reply", "sent", "untaken"
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
        self._open: dict[str, Spent] = {}
        self._spent = Spent()
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
    def spent(self) -> Spent:
        """What was asked: by the replies what they cost, and all that calls may cost of which no more is known."""
        with self._lock:
            self._look()
            return self._spent

    @property
    def begins_anew(self) -> bool:
        """Whether replies from elsewhere do not count here."""
        with self._lock:
            self._look()
            return self._begins_anew

    def keep(self, key: str, reply: Mapping[str, Any]) -> None:
        """Add a reply, which is safe on the disk when this returns."""
        self._append({"event": REPLY, "key": key, "reply": dict(reply)})

    def sent(self, call: str, at_most: Spent) -> None:
        """Add that a call of this name is about to be made, and what it may cost."""
        tokens = {"prompt_tokens": at_most.prompt_tokens, "completion_tokens": at_most.completion_tokens}
        self._append({"event": SENT, "call": call, **tokens})

    def untaken(self, call: str) -> None:
        """Add that a call cost nothing."""
        self._append({"event": UNTAKEN, "call": call})

    def remove_if_idle(self) -> None:
        """Take the file away if all that it says is that nobody took a call, so that another judge can be tried."""
        with self._lock:
            self._look()
            if self._lines and not (self._replies or self._open or self._begins_anew or self._ends_torn):
                remove(self.path)
                self._forget()

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
            self._add(event)
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise InvalidDataError(
                f"`{self.path}` line {self._lines + 1} is not an intact reply",
                details=[str(error)],
                hint=f"the other lines are intact; to do without the file, which makes the judge be asked again: mv "
                f"{self.path} {self.path}.damaged",
            ) from error

    def _add(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == ANEW:
            self._begins_anew = True
        elif kind == SENT:
            self._open[event["call"]] = Spent(1, event["prompt_tokens"], event["completion_tokens"])
            self._spent += self._open[event["call"]]
        elif kind == UNTAKEN:
            self._spent -= self._open.pop(event["call"], Spent())
        else:
            reply = event["reply"]
            self._replies.setdefault(event["key"], []).append(reply)
            self._spent += _cost(reply) - self._open.pop(reply.get("call"), Spent())


def _cost(reply: Mapping[str, Any]) -> Spent:
    """One call and its tokens, by an estimate where the server counted none; nothing where it did not take the question."""
    if reply.get("too_long") or reply.get("not_allowed"):
        return Spent()
    return Spent(
        1,
        reply.get("prompt_tokens") or reply.get("estimated_tokens", 0),
        reply.get("completion_tokens") or reply.get("estimated_reply_tokens", 0),
    )
