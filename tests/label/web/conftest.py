"""A run whose first stage of labels waits for people, made once."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command_line import done, on

PAIRS = 50


def waiting_run(folder: Path, model: Path, pairs: int) -> Path:
    """A run with so many selected pairs of a pool, whose prompts are told apart."""
    rows = [{"prompt": f"Question {n}", "response_a": f"yes, {n}", "response_b": f"no, {n}"} for n in range(pairs)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = ("--set", "adapter.r=2", "--set", "featurize.proj_dim=16", "--budget", pairs, "--quiet")
    before = Path.cwd()
    os.chdir(folder)
    try:
        done(*on(folder / "run", "select"), "--pool", "pairs.jsonl", "--model", model, *small)
    finally:
        os.chdir(before)
    return folder / "run"


@pytest.fixture(scope="session")
def waiting_original(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Path:
    """Such a run; read it, never change it."""
    return waiting_run(tmp_path_factory.mktemp("waiting"), small_model, PAIRS)


@pytest.fixture
def waiting(waiting_original: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(waiting_original, tmp_path / "run"))


@pytest.fixture
def long_waiting(tmp_path: Path, small_model: Path) -> Path:
    """A run with more pairs than are answered in sixty short lives of a server."""
    return waiting_run(tmp_path, small_model, 6 * PAIRS)
