"""A run whose first stage of labels waits for people, made once."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command_line import done, on

PAIRS = 50


@pytest.fixture(scope="session")
def waiting_original(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Path:
    """A run with 50 selected pairs of a pool, whose prompts are told apart; read it, never change it."""
    folder = tmp_path_factory.mktemp("waiting")
    rows = [{"prompt": f"Question {n}", "response_a": f"yes, {n}", "response_b": f"no, {n}"} for n in range(PAIRS)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = ("--set", "adapter.r=2", "--set", "featurize.proj_dim=16", "--budget", PAIRS, "--quiet")
    before = Path.cwd()
    os.chdir(folder)
    try:
        done(*on(folder / "run", "select"), "--pool", "pairs.jsonl", "--model", small_model, *small)
    finally:
        os.chdir(before)
    return folder / "run"


@pytest.fixture
def waiting(waiting_original: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(waiting_original, tmp_path / "run"))
