"""The answers of a stage as an append-only log: every line was paid for, none is ever rewritten.

A line is one event: a label, or the retraction of one. It carries a sequence number and a checksum, and is on the disk
before `append` returns. Taking an answer back adds a line.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.interruption import raise_if_requested
from activedpo_cli.base.records import Asked, Label
from activedpo_cli.base.regular_files import check_regular, open_regular, read_limited, whole_lines_of
from activedpo_cli.store.files import append_line, write_bytes
from activedpo_cli.store.sealed_lines import WRONG, opened, sealed

TORN_NAMES = ("labels.torn", *(f"labels.torn-{number}" for number in range(2, 10)))
"""Where the bytes of interrupted lines are kept."""


@dataclass(frozen=True)
class LabelEvent:
    """An answer that was given, or taken back (`label` None), and when (UTC, ISO 8601).

    `asked` says whose answer is taken back; None means that all about the pair are.
    """

    time: str
    pair_id: str
    label: Label | None
    asked: Asked | None = None


class LabelLog:
    """The labels of one stage, in the order in which they were given."""

    def __init__(self, path: Path, now: Callable[[], str] | None = None) -> None:
        self.path = path
        self._now = now or (lambda: datetime.now(UTC).isoformat(timespec="seconds"))
        self._events: list[LabelEvent] = []
        self._bytes_read = 0

    def labels(self) -> dict[str, Label]:
        """The label that stands for each selected pair, by pair id: that of whoever answered first."""
        first: dict[str, Label] = {}
        for label in self.answers():
            if label.may_train:
                first.setdefault(label.pair_id, label)
        return first

    def answers(self) -> list[Label]:
        """Every answer that was not taken back, by anybody to any question, in the order in which they were given."""
        return [event.label for event in self.standing() if event.label]

    def standing(self) -> list[LabelEvent]:
        """The events of these answers; of several to the same question by the same person the last one."""
        by_pair: dict[str, dict[Asked, tuple[int, LabelEvent]]] = {}
        for number, event in enumerate(self.history()):
            if event.label:
                by_pair.setdefault(event.pair_id, {})[event.label.asked] = (number, event)
            elif event.asked is not None:
                by_pair.get(event.pair_id, {}).pop(event.asked, None)
            else:
                by_pair.pop(event.pair_id, None)
        numbered = [given for answers in by_pair.values() for given in answers.values()]
        return [event for _, event in sorted(numbered, key=lambda given: given[0])]

    def history(self) -> list[LabelEvent]:
        """All events; only lines that were added since the last look are read, by this process or by another."""
        check_regular(self.path)
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < self._bytes_read:
            self._events, self._bytes_read = [], 0
        if size > self._bytes_read:
            for line in whole_lines_of(self.path, self._bytes_read):
                self._events.append(self._parse(len(self._events), line))
                self._bytes_read += len(line) + 1
        return self._events

    def append(self, *labels: Label) -> None:
        """Record answers; they are safe on the disk when this returns."""
        self._append([{"event": "label", "label": asdict(label)} for label in labels])

    def retract(self, *pair_ids: str) -> None:
        """Take the standing answers of pairs back, whoever gave them; all stay in the log."""
        self._append([{"event": "retract", "pair_id": pair_id} for pair_id in pair_ids])

    def retract_answer(self, asked: Asked) -> None:
        """Take back what one person answered to one question; it stays in the log."""
        self._append([{"event": "retract", **asked._asdict()}])

    def repair(self) -> int:
        """Cut a last line that was never acknowledged because its writing was interrupted; returns its bytes.

        The bytes are kept in a file beside the log. Without this, the next line would be glued to the torn one.
        """
        if self._ends_whole():
            return 0
        data = read_limited(self.path)
        whole = data[: data.rfind(b"\n") + 1]
        torn = data[len(whole) :]
        free = (self.path.with_name(name) for name in TORN_NAMES)
        kept = next((path for path in free if not path.exists()), self.path.with_name(TORN_NAMES[-1]))
        write_bytes(kept, torn)
        write_bytes(self.path, whole)
        return len(torn)

    def intact_part(self) -> tuple[bytes, int]:
        """What a log would be of the lines whose checksums are right, wherever they stand now, and how many lines are not.

        They come in the order of their sequence numbers, each once, and are numbered anew.
        """
        lines = dict.fromkeys(whole_lines_of(self.path, 0))
        found: list[dict[str, Any]] = []
        for line in lines:
            with suppress(InvalidDataError):
                found.append(self._opened(line, len(found)))
        events = sorted(found, key=lambda event: event["sequence"])
        return b"".join(sealed({**event, "sequence": place}) for place, event in enumerate(events)), len(lines) - len(
            found
        )

    def _append(self, events: list[dict[str, Any]]) -> None:
        # A scorer may have caught the exception by which a signal asked for the end, and gone on with a score that it
        # made up. Raising it again here keeps such a score from being stored as an answer.
        raise_if_requested()
        lines = []
        for sequence, event in enumerate(events, start=len(self.history())):
            lines.append(sealed({"sequence": sequence, "time": self._now(), **event}))
        if lines:
            append_line(self.path, b"".join(lines))

    def _ends_whole(self) -> bool:
        if not self.path.exists() or self.path.stat().st_size == 0:
            return True
        with open_regular(self.path) as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read() == b"\n"

    def _parse(self, number: int, line: bytes) -> LabelEvent:
        event = self._opened(line, number)
        if event["sequence"] != number:
            raise self._not_intact(number, WRONG)
        return _event_of(event)

    def _opened(self, line: bytes, number: int) -> dict[str, Any]:
        """A line without its checksum, which is right; raises InvalidDataError where it is not, or the line is no event."""
        try:
            event = opened(line)
            if not isinstance(event["sequence"], int):
                raise ValueError(WRONG)
            _event_of(event)
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise self._not_intact(number, str(error)) from error
        return event

    def _not_intact(self, number: int, reason: str) -> InvalidDataError:
        return InvalidDataError(
            f"`{self.path}` line {number + 1} is not an intact label",
            details=[reason],
            hint=f"the other lines are intact; look at the file before you do anything: {self.path}",
        )


def _event_of(event: dict[str, Any]) -> LabelEvent:
    label = Label(**event["label"]) if event["event"] == "label" else None
    if label:
        return LabelEvent(event["time"], label.pair_id, label)
    asked = Asked(event["pair_id"], event["annotator"], event["is_repeat"]) if "annotator" in event else None
    return LabelEvent(event["time"], event["pair_id"], None, asked)
