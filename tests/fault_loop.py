"""Let one command fail at its first change to a file, at its second, and so on until it ends; each time run it again.

The model is SQLite's test of full disks and lost power: whatever fails, the same command must come to the same end.
"""

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults import KILLED
from zygote import Zygote

KILLING = ("crash-before", "crash-after", "torn", "power")
Look = Callable[[Path], Any]


@dataclass(frozen=True)
class Case:
    """A command, the folder it is given in, and what is looked at afterwards."""

    words: tuple[Any, ...]
    before: Path
    look: Look
    typed: str = ""


@dataclass
class Found:
    """What a loop went through."""

    faults: int = 0
    changes: int = 0


def fault_loop(zygote: Zygote, case: Case, kind: str, place: Path, numbers: Iterable[int] | None = None) -> Found:
    """Go through all numbers, or some; returns how many faults there were."""
    expected = golden(zygote, case, place)
    found = Found()
    for number in numbers or itertools.count(1):
        folder = _fresh(case, place / "work")
        where = _Where(case, kind, number, place)
        status = zygote.run(
            case.words, folder, stderr=where.stderr, fault=where.fault, answers=where.answers, **where.others
        )
        fired = where.note.read_text() if where.note.is_file() else None
        said = where.stderr.read_text()
        what = f"{kind} at {fired or number}: {said}"
        check_nothing_half_visible(folder)
        if fired is None:
            assert status == 0, what
            break
        found.faults += 1
        found.changes = number
        _check_ending(kind, status, fired, said, what)
        _check_answers(folder, where.answers)
        if kind != "short":
            status = zygote.run(case.words, folder, stderr=where.stderr, answers=where.answers, **where.others)
            assert status == 0, f"{what}\nand again: {where.stderr.read_text()}"
        assert case.look(folder) == expected, what
        _check_answers(folder, where.answers)
        left = list(folder.rglob(".*.tmp*"))
        assert not left, f"{what}\nleft behind: {left}"
    return found


def check_nothing_half_visible(folder: Path) -> None:
    """Every stage that has a manifest has all that it lists, byte for byte."""
    for path in folder.rglob("manifest.json"):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        record = json.loads(path.read_bytes())
        for name, facts in {**record["outputs"], **record["logs"]}.items():
            content = (path.parent / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == facts["sha256"], path.parent / name


def labels_present(folder: Path) -> set[str]:
    """The pairs whose answers stand in any log below a folder."""
    found = set()
    for path in folder.rglob("labels.jsonl"):
        for line in path.read_bytes().split(b"\n")[:-1]:
            event = json.loads(line)
            found.add(event["label"]["pair_id"] if event["event"] == "label" else None)
    return found


class _Where:
    """The files beside the folder that a command works in."""

    def __init__(self, case: Case, kind: str, number: int, place: Path) -> None:
        self.note, self.stderr, self.answers = place / "note", place / "stderr", place / "answers"
        for path in (self.note, self.answers):
            path.unlink(missing_ok=True)
        self.fault = {"kind": kind, "at": number, "note": str(self.note)}
        self.others: dict[str, Any] = {"blank_figures": True}
        if case.typed:
            (place / "typed").write_text(case.typed)
            self.others["stdin"] = place / "typed"


def _fresh(case: Case, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(case.before, folder))


def golden(zygote: Zygote, case: Case, place: Path) -> Any:
    """What there is after the command, undisturbed."""
    place.mkdir(parents=True, exist_ok=True)
    folder, where = _fresh(case, place / "work"), _Where(case, "short", 10**9, place)
    assert zygote.run(case.words, folder, stderr=where.stderr, **where.others) == 0, where.stderr.read_text()
    return case.look(folder)


def _check_ending(kind: str, status: int, fired: str, said: str, what: str) -> None:
    assert "Traceback" not in said, what
    assert "this is a bug" not in said, what
    if kind in KILLING:
        assert status == KILLED, what
    elif kind == "short":
        assert status == 0, what
    elif status == 0:  # what nobody needs is not worth an error
        assert fired.endswith((".holder", ".pairs")), what
    else:
        assert status == 1, what
        assert "error: " in said or "✗ " in said, what  # the latter of a run of an experiment
        assert "hint: " in said, what
        path = Path(fired.split(" ", 2)[2])
        assert any(name in said.replace("\n", "") for name in (_visible(path), str(path))), what
        if kind == "enospc":
            assert "free: " in said, what


def _visible(path: Path) -> str:
    """The name by which a person knows what is written: without a temporary file's marks; of a hidden folder, its place."""
    for place, part in enumerate(path.parts[:-1]):
        if part.startswith(".") and part.endswith(".tmp"):
            return str(Path(*path.parts[:place]))
    name = path.name
    if not name:  # the folder in which the command was given
        return ""
    if name.startswith(".") and name.endswith(".tmp"):
        name = name.removeprefix(".").removesuffix(".tmp").removesuffix(".old")
    return str(path.with_name(name))


def _check_answers(folder: Path, answers: Path) -> None:
    acknowledged = set(answers.read_text().split()) if answers.is_file() else set()
    assert acknowledged <= labels_present(folder), "an answer that was acknowledged is lost"
