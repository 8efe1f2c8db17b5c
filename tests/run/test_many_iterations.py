"""Looking at a run reads each iteration's files a number of times that does not grow with the number of iterations."""

import json
import shutil
from pathlib import Path

import pytest

from activedpo_cli.run.status import run_status
from activedpo_cli.store import jsonl
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
    read_limited = jsonl.read_limited
    monkeypatch.setattr(jsonl, "read_limited", lambda path: reads.append(path) or read_limited(path))
    counts = []
    for iterations in (4, 8, 12):
        with_iterations(finished, iterations)
        reads.clear()
        assert len(run_status(Run(finished))["iterations"]) == iterations
        counts.append(len(reads))
    assert counts[2] - counts[1] == counts[1] - counts[0]
