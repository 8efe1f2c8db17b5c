"""Several processes share the units of one step: who begins, who finishes, and who is kept away meanwhile."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_units import NAMES, Squares, started

from activedpo_cli.base.errors import BusyError, RefusedError
from activedpo_cli.base.launchers import Shard
from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.engine.carrying_out import Task, carry_out
from activedpo_cli.engine.company import joined, refuse_while_shared
from activedpo_cli.engine.step import Execution
from activedpo_cli.engine.units import AtOnce, Unit, do_units
from activedpo_cli.store.lock import exclusive
from activedpo_cli.store.manifest import Manifest
from activedpo_cli.store.stage_folder import StageFolder

ONE_OF_TWO = Execution(shard=Shard(0, 2))
VERSIONS = {"torch": "2.13.0"}


def test_each_process_begins_with_units_of_its_own(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path / "work")
    folder.begin(started())
    first, second = Squares(folder), Squares(folder)
    first.before = lambda unit: do_units(second, tmp_path / "claims", SilentProgress(), Shard(1, 2)) and None
    assert do_units(first, tmp_path / "claims", SilentProgress(), Shard(0, 2))
    assert second.seen == [NAMES[1], NAMES[3], NAMES[5], NAMES[2], NAMES[4]]  # its own, and then those left over
    assert first.seen == [NAMES[0]]


def test_who_joins_later_sweeps_nothing_away_and_finishes_nothing_twice(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path / "work")
    half_written = folder.path / ".half-written.tmp"
    made_by_the_other: list[Manifest | None] = []

    def work_beside(unit: Unit) -> None:
        if unit.name != NAMES[-1] or made_by_the_other:
            return
        half_written.write_bytes(b"of the first process")
        with exclusive(tmp_path / "lock.lock", "work") as lock:
            task = Task(folder, started(), tmp_path / "claims", lent=lock)
            made_by_the_other.append(carry_out(task, finds_all_units, ONE_OF_TWO, SilentProgress()))

    def finds_all_units() -> AtOnce:
        assert half_written.exists(), "what another process writes was swept away"
        return AtOnce(dict)

    with exclusive(tmp_path / "lock.lock", "work") as lock:
        task = Task(folder, started(), tmp_path / "claims", lent=lock)
        made = carry_out(task, lambda: Squares(folder, before=work_beside), ONE_OF_TWO, SilentProgress())
    assert made is None, "the other one has finished it meanwhile"
    assert made_by_the_other[0] is not None
    assert folder.manifest is not None
    assert folder.manifest.execution["attempts"] == 1


def test_while_work_is_shared_nobody_alone_begins(tmp_path: Path) -> None:
    with joined(tmp_path, Shard(0, 2), VERSIONS) as is_first:
        assert is_first
        with pytest.raises(BusyError, match="1 process shares the work on `iter-001/generate`"):
            refuse_while_shared(tmp_path, "iter-001/generate")
        with joined(tmp_path, Shard(1, 2), VERSIONS) as is_first:
            assert not is_first
    refuse_while_shared(tmp_path, "iter-001/generate")


def test_other_versions_of_packages_are_refused(tmp_path: Path) -> None:
    with joined(tmp_path, Shard(0, 2), VERSIONS), pytest.raises(RefusedError) as refused:
        joined(tmp_path, Shard(1, 2), {"torch": "2.12.0"}).__enter__()
    assert list(refused.value.details) == ["torch  there 2.13.0, here 2.12.0"]
    with joined(tmp_path, Shard(1, 2), {"torch": "2.12.0"}):
        pass  # nobody else is at work any more


MEMBER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_company import *
place, index, seconds = Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
folder = StageFolder(place / "work")
work = Squares(folder, before=lambda unit: time.sleep(seconds))
with exclusive(place / "lock.lock", "work", None) as lock:
    task = Task(folder, started(), place / "claims", lent=lock)
    print("ready", flush=True)
    made = carry_out(task, lambda: work, Execution(shard=Shard(index, 2)), SilentProgress())
print(made is not None, *work.seen, flush=True)
"""


def member(place: Path, index: int, seconds: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", MEMBER, str(Path(__file__).parent), str(place), str(index), str(seconds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_unit_of_a_killed_process_is_done_by_one_that_waits_for_it(tmp_path: Path) -> None:
    """The doomed process hangs in its first unit; the other has done all else when it dies."""
    doomed = member(tmp_path, 1, 60)
    other = member(tmp_path, 0, 0)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "work").glob("part-*"))) < len(NAMES) - 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (tmp_path / "work" / NAMES[1]).exists()
    assert other.poll() is None
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.wait(timeout=10)
    said = other.communicate(timeout=60)[0].split()
    assert said[0] == "True"
    assert said[-1] == NAMES[1]
    assert sorted(said[1:]) == NAMES
    assert StageFolder(tmp_path / "work").manifest is not None
