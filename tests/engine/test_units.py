"""Units: each is made once by whoever claims it, whatever the number of claimers and however they end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from activedpo_cli.base.errors import BusyError
from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.engine.carrying_out import Task, carry_out
from activedpo_cli.engine.step import Execution
from activedpo_cli.engine.units import AtOnce, Unit, UnitWork, do_units
from activedpo_cli.store.lock import claimed
from activedpo_cli.store.manifest import Started
from activedpo_cli.store.stage_folder import StageFolder

NAMES = [f"part-{number:05d}.jsonl" for number in range(6)]


@dataclass
class Squares(UnitWork):
    """Unit n holds n²; `seen` is told of each unit that is made here."""

    folder: StageFolder
    seen: list[str] = field(default_factory=list)
    before: Callable[[Unit], None] = lambda unit: None

    def counted(self) -> tuple[str, str]:
        return "squares", "numbers"

    def units(self) -> list[Unit]:
        return [Unit(name, size=number + 1, seed=number) for number, name in enumerate(NAMES)]

    def do(self, unit: Unit) -> None:
        self.before(unit)
        self.seen.append(unit.name)
        assert unit.seed is not None
        self.folder.write_json_lines(unit.name, [{"square": unit.seed**2, "by": os.getpid()}])

    def finish(self) -> dict[str, Any]:
        return {"sum": sum(row["square"] for name in NAMES for row in self.folder.read_rows(name, dict))}


class Counting(SilentProgress):
    def __init__(self) -> None:
        self.said: list[tuple[str, int, int]] = []

    def start(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.said.append((f"{label} {unit}", total, done))

    def advance(self, amount: int = 1) -> None:
        self.said.append(("more", amount, 0))


def a_folder(path: Path) -> StageFolder:
    folder = StageFolder(path / "work")
    folder.begin(started())
    return folder


def started() -> Started:
    return Started(stage="squares", stage_version=1, iteration=0, settings={}, inputs={})


def test_units_that_are_there_are_skipped_and_counted(tmp_path: Path) -> None:
    folder, progress = a_folder(tmp_path), Counting()
    folder.write_json_lines(NAMES[1], [{"square": 1, "by": 0}])
    work = Squares(folder)
    assert do_units(work, tmp_path / "claims", progress)
    assert work.seen == [NAMES[0], *NAMES[2:]]
    assert progress.said == [("squares numbers", 21, 2), *(("more", size, 0) for size in (1, 3, 4, 5, 6))]
    assert work.finish() == {"sum": 0 + 1 + 4 + 9 + 16 + 25}


def test_a_claimed_unit_is_left_to_its_claimer(tmp_path: Path) -> None:
    folder, work = a_folder(tmp_path), Squares(a_folder(tmp_path))
    with claimed(tmp_path / "claims" / f"{NAMES[2]}.lock") as is_ours:
        assert is_ours
        assert not do_units(work, tmp_path / "claims", SilentProgress())
    assert work.seen == [name for name in NAMES if name != NAMES[2]]
    assert do_units(work, tmp_path / "claims", SilentProgress())
    assert work.seen[-1] == NAMES[2]
    assert folder.names("part-*") == NAMES


def test_a_unit_that_appeared_before_it_was_claimed_is_not_made_again(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)

    def another_makes_the_next(unit: Unit) -> None:
        if unit.name == NAMES[0]:
            folder.write_json_lines(NAMES[1], [{"square": 1, "by": 0}])

    work = Squares(folder, before=another_makes_the_next)
    assert do_units(work, tmp_path / "claims", SilentProgress())
    assert NAMES[1] not in work.seen


def test_who_does_not_see_all_units_does_not_finish(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    task = Task(folder, started(), tmp_path / "claims")
    with claimed(tmp_path / "claims" / f"{NAMES[0]}.lock"), pytest.raises(BusyError):
        carry_out(task, lambda: Squares(folder), Execution(), SilentProgress())
    assert folder.manifest is None
    made = carry_out(task, lambda: Squares(folder), Execution(), SilentProgress())
    assert made.summary == {"sum": 55}
    assert set(made.outputs) == set(NAMES)


CLAIMER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_units import Squares, StageFolder, SilentProgress, do_units
place = Path(sys.argv[2])
work = Squares(StageFolder(place / "work"), before=lambda unit: time.sleep(float(sys.argv[3])))
print("ready", flush=True)
sys.stdin.readline()
all_there = do_units(work, place / "claims", SilentProgress())
print(all_there, *work.seen, flush=True)
"""


def claimer(place: Path, seconds: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", CLAIMER, str(Path(__file__).parent), str(place), str(seconds)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_several_processes_share_units_and_none_is_made_twice(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    processes = [claimer(tmp_path, 0.05) for _ in range(3)]
    for process in processes:
        go(process)
    said = [process.communicate(timeout=60)[0].split() for process in processes]
    made = [name for words in said for name in words[1:]]
    assert sorted(made) == NAMES
    assert "True" in {words[0] for words in said}, "who comes last sees that all are there"
    assert folder.names("part-*") == NAMES


def test_the_unit_of_a_killed_process_is_made_by_another(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    doomed = claimer(tmp_path, 60)
    go(doomed)
    lock = tmp_path / "claims" / f"{NAMES[0]}.lock"
    for _ in range(500):
        if lock.exists():
            with claimed(lock) as is_ours:
                if not is_ours:
                    break
        time.sleep(0.01)
    doomed.send_signal(signal.SIGKILL)
    doomed.wait(timeout=10)
    work = Squares(folder)
    assert do_units(work, tmp_path / "claims", SilentProgress())
    assert work.seen == NAMES


def test_the_seconds_of_all_attempts_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt works for a known time, by the modification time of what it left, before it breaks off.

    The clock of the file system, on another machine, is an hour apart from this one's.
    """
    monkeypatch.setattr(time, "time", lambda now=time.time: now() - 3600)
    folder = StageFolder(tmp_path / "work")
    task = Task(folder, started(), tmp_path / "claims")

    def break_off() -> dict[str, Any]:
        folder.write_json_lines(NAMES[0], [])
        modified = (folder.path / NAMES[0]).stat().st_mtime + 7
        os.utime(folder.path / NAMES[0], times=(modified, modified))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        carry_out(task, lambda: AtOnce(break_off), Execution(), SilentProgress())
    made = carry_out(task, lambda: AtOnce(dict), Execution(), SilentProgress())
    assert made.execution["attempts"] == 2
    assert made.execution["resumed"] is True
    assert 6.5 < made.execution["seconds"] < 9
    once = StageFolder(tmp_path / "once")
    made = carry_out(Task(once, started(), tmp_path / "c"), lambda: AtOnce(dict), Execution(), SilentProgress())
    assert (made.execution["attempts"], made.execution["resumed"]) == (1, False)
    assert made.execution["seconds"] < 1
    assert sorted(path.name for path in once.path.iterdir()) == ["manifest.json"]
