"""Looking at a run reads each iteration's files a number of times that does not grow with the number of iterations."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from activedpo_cli.base import regular_files
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.looking_once import looking_once, once
from activedpo_cli.run.status import run_status
from activedpo_cli.store.run import Run


def with_iterations(run: Path, count: int) -> None:
    """Copies of the second iteration, each as though it had been made where it stands."""
    for number in range(3, count + 1):
        if not (copy := run / f"iter-{number:03d}").exists():
            shutil.copytree(run / "iter-002", copy)
            for path in copy.glob("*/manifest.json"):
                path.write_text(json.dumps(json.loads(path.read_bytes()) | {"iteration": number}))


def test_status_of_many_iterations(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    looks: list[Any] = []
    open_regular, stat = regular_files._open_regular, os.stat
    monkeypatch.setattr(regular_files, "_open_regular", lambda path: reads.append(path) or open_regular(path))
    monkeypatch.setattr(os, "stat", lambda path, **kinds: looks.append(path) or stat(path, **kinds))
    counts, looked = [], []
    for iterations in (4, 8, 12):
        with_iterations(finished, iterations)
        reads.clear()
        looks.clear()
        assert len(run_status(Run(finished))["iterations"]) == iterations
        counts.append(len(reads))
        looked.append(len(looks))
    assert counts[2] - counts[1] == counts[1] - counts[0]
    assert counts[2] - counts[1] <= 4 * 10, "each of the six records of an iteration is read about once"
    files = sum(1 for path in (finished / "iter-012").rglob("*") if path.is_file())
    assert looked[2] - looked[1] <= 4 * (files + 12), "each file of an iteration is looked at about once"


def test_what_is_looked_up_once(finished: Path) -> None:
    """Within a look only: what was changed since is seen by the next one."""
    manifest = finished / "iter-001" / "label" / "manifest.json"
    before = run_status(Run(finished))
    record = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps({**record, "summary": {**record["summary"], "labels_spent": 77}}))
    after = run_status(Run(finished))
    assert after["labels_spent"] == before["labels_spent"] - record["summary"]["labels_spent"] + 77


def test_answers_are_kept_while_one_looks_and_no_longer() -> None:
    asked: list[str] = []

    def ask(name: str, fails: bool = False) -> int:
        asked.append(name)
        if fails:
            raise InvalidDataError(name)
        return len(asked)

    assert [once("a", lambda: ask("a")), once("a", lambda: ask("a"))] == [1, 2]
    with looking_once():
        assert [once("a", lambda: ask("a")), once("a", lambda: ask("a")), once("b", lambda: ask("b"))] == [3, 3, 4]
        for _ in range(2):
            with pytest.raises(InvalidDataError, match="broken"):
                once("c", lambda: ask("broken", fails=True))
    assert asked == ["a", "a", "a", "b", "broken"]
    assert once("a", lambda: ask("a")) == 6
