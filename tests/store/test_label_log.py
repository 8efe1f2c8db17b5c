"""Answers cost money: the log loses none, invents none, and says when it was tampered with."""

import errno
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.base import regular_files
from activedpo_cli.base.errors import InvalidDataError, StorageError
from activedpo_cli.base.records import Label
from activedpo_cli.store.label_log import LabelLog
from activedpo_cli.store.operations import operations

PAIRS = [f"p{number:06d}/i001/r0-r1" for number in range(4)]


def label(pair: str, side: int = 0, note: str | None = None) -> Label:
    return Label(
        pair_id=pair, outcome="chosen", preferred_id=f"{pair.rpartition('/')[0]}/r{side}", oracle="human", note=note
    )


def new_log(folder: Path) -> LabelLog:
    return LabelLog(folder / "labels.jsonl", now=lambda: "2026-01-01T00:00:00+00:00")


@given(st.lists(st.tuples(st.sampled_from(PAIRS), st.sampled_from([0, 1, None])), max_size=12))
def test_the_last_answer_stands(tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int | None]]) -> None:
    """Whatever is given and taken back, also across processes; nothing is ever rewritten."""
    folder = tmp_path_factory.mktemp("log")
    expected: dict[str, Label] = {}
    before = b""
    for number, (pair, side) in enumerate(events):
        log = new_log(folder) if number % 3 == 0 else log  # noqa: F821
        if side is None:
            log.retract(pair)
            expected.pop(pair, None)
        else:
            log.append(label(pair, side))
            expected[pair] = label(pair, side)
        data = log.path.read_bytes()
        assert data.startswith(before)
        before = data
    assert new_log(folder).labels() == expected


@given(st.text())
def test_notes_of_any_kind_come_back(tmp_path_factory: pytest.TempPathFactory, note: str) -> None:
    log = new_log(tmp_path_factory.mktemp("log"))
    log.append(label(PAIRS[0], note=note))
    log.append(label(PAIRS[1]))
    assert new_log(log.path.parent).labels()[PAIRS[0]].note == note


def test_a_torn_line_at_any_byte_is_cut_and_kept(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.append(label(PAIRS[0]))
    whole = log.path.read_bytes()
    log.append(label(PAIRS[1]))
    data = log.path.read_bytes()
    for end in [*range(len(whole) + 1, len(data), 23), len(data) - 1]:
        log.path.write_bytes(data[:end])
        again = new_log(tmp_path)
        assert set(again.labels()) == {PAIRS[0]}
        assert again.repair() == end - len(whole)
        assert log.path.with_name("labels.torn").read_bytes() == data[len(whole) : end]
        log.path.with_name("labels.torn").unlink()
        assert log.path.read_bytes() == whole
        assert again.repair() == 0
    again.append(label(PAIRS[2]))
    assert list(new_log(tmp_path).labels()) == [PAIRS[0], PAIRS[2]]


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], lines[1].replace(b"/r0", b"/r1"), lines[2]],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[0], lines[2], lines[1]],
        lambda lines: [lines[0], b"\n", lines[1], lines[2]],
        lambda lines: [lines[0], b"[1]\n", lines[2]],
        lambda lines: [lines[0], lines[0], lines[1], lines[2]],
    ],
)
def test_a_line_that_was_changed_lost_or_moved_is_refused(tmp_path: Path, damage) -> None:
    log = new_log(tmp_path)
    for pair in PAIRS[:3]:
        log.append(label(pair))
    lines = log.path.read_bytes().splitlines(keepends=True)
    damaged = b"".join(damage(lines))
    log.path.write_bytes(damaged)
    with pytest.raises(InvalidDataError, match="line 2"):
        new_log(tmp_path).labels()
    with pytest.raises(InvalidDataError, match="line 2"):
        new_log(tmp_path).append(label(PAIRS[3]))
    assert log.path.read_bytes() == damaged


def test_a_line_is_readable_by_eye(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.append(label(PAIRS[0]))
    event = json.loads(log.path.read_bytes())
    assert event["event"] == "label"
    assert event["sequence"] == 0
    assert event["label"]["preferred_id"] == "p000000/i001/r0"
    assert event["time"].startswith("2026-01-01")


def test_a_second_torn_line_does_not_replace_the_first(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.append(label(PAIRS[0]))
    for number in range(3):
        with open(log.path, "ab") as stream:
            stream.write(f"torn {number}".encode())
        new_log(tmp_path).repair()
    kept = {path.read_bytes() for path in tmp_path.glob("labels.torn*")}
    assert kept == {b"torn 0", b"torn 1", b"torn 2"}


def test_two_writers_that_take_turns_see_what_the_other_wrote(tmp_path: Path) -> None:
    """As two processes do under a lock; one of them is killed while it writes."""
    one, two = new_log(tmp_path), new_log(tmp_path)
    one.append(label(PAIRS[0]))
    two.append(label(PAIRS[1]))
    one.retract(PAIRS[1])
    with open(one.path, "ab") as stream:
        stream.write(b'{"sequence": 3, "ti')
    assert list(two.labels()) == [PAIRS[0]]
    assert two.repair() == 19
    two.append(label(PAIRS[2]))
    assert list(one.labels()) == list(new_log(tmp_path).labels()) == [PAIRS[0], PAIRS[2]]
    assert [json.loads(line)["sequence"] for line in one.path.read_bytes().splitlines()] == [0, 1, 2, 3]


class Growing(io.BytesIO):
    """A file to which another process writes the rest of a line after half of it was read."""

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        if line and not line.endswith(b"\n"):
            here = self.tell()
            self.write(b"o\nthree\n")
            self.seek(here)
        return line


def test_a_line_that_grows_while_it_is_read_is_not_one_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regular_files, "open_regular", lambda path: Growing(b"one\ntw"))
    assert list(regular_files.whole_lines_of(tmp_path, 0)) == [b"one"]


def test_what_is_intact_of_a_damaged_log_stays(tmp_path: Path) -> None:
    """In the order and with the times in which it was written, what was taken back too."""
    log = new_log(tmp_path)
    log.append(*(label(pair) for pair in PAIRS))
    log.retract(PAIRS[0])
    log.append(label(PAIRS[0], 1))
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join([lines[5], lines[4], lines[0], lines[0], b"[1]\n", b"{\n", *lines[2:4]]) + b"torn")
    part, damaged = LabelLog(log.path).intact_part()
    assert damaged == 2
    log.path.write_bytes(part)
    assert new_log(tmp_path).labels() == {
        PAIRS[2]: label(PAIRS[2]),
        PAIRS[3]: label(PAIRS[3]),
        PAIRS[0]: label(PAIRS[0], 1),
    }
    assert {event.time for event in new_log(tmp_path).history()} == {"2026-01-01T00:00:00+00:00"}
    assert len(new_log(tmp_path).history()) == 5


@pytest.mark.parametrize("name", ["write", "sync"])
def test_an_answer_that_the_disk_did_not_take_does_not_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Else it would be called saved when it is sent again, and nothing would be written to the disk then."""
    log = LabelLog(tmp_path / "labels.jsonl")
    log.append(label(PAIRS[0]))

    def fails(path: Path, descriptor: int, *data: memoryview) -> int:
        if data:
            os.write(descriptor, data[0][:9])
        raise OSError(errno.EIO, "injected")

    with monkeypatch.context() as broken:
        broken.setattr(operations, name, fails)
        with pytest.raises(StorageError):
            log.append(label(PAIRS[1]))
    assert len(log.answers()) == len(LabelLog(log.path).answers()) == 1
    log.append(label(PAIRS[1]))
    assert len(LabelLog(log.path).answers()) == 2
