"""Under a launcher that starts several processes nobody writes: no rank, alive or dead, can leave a manifest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import activedpo, done, on, refused, snapshot

from activedpo_cli.train.trainer_setup import on_one_device

STAGES_AND_LOOPS = ("generate", "featurize", "select", "label", "train", "evaluate", "sft", "run", "init")


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
@pytest.mark.parametrize("command", STAGES_AND_LOOPS)
def test_every_command_that_writes_refuses(
    finished: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    before = snapshot(finished)
    for rank in ("0", "1"):
        monkeypatch.setenv(name, "2")
        monkeypatch.setenv("RANK", rank)
        told = refused(2, *on(finished, command))
        assert f"one of 2 processes ({name}=2)" in told
        assert "without the launcher" in told
    assert snapshot(finished) == before


def test_an_experiment_refuses_before_it_makes_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "one of 4 processes" in refused(2, "experiment", "figure-1-tiny")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", ["1", "", "many"])
def test_one_process_is_no_crowd(finished: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    done(*on(finished, "train", iteration=2))


def test_whoever_looks_may_be_many(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done("ls", "methods")
    done(*on(finished, "status"))
    assert activedpo("generate", "--help").exit_code == 0


@pytest.mark.slow
def test_two_ranks_of_torchrun(finished: Path) -> None:
    before = snapshot(finished)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    told = subprocess.run(
        [*launcher, "-m", "activedpo_cli", "generate", "--iteration", "1", "--force"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "ACTIVEDPO_RUN": str(finished)},
    )
    assert told.returncode != 0
    assert told.stderr.count("error: this is one of 2 processes (WORLD_SIZE=2)") >= 1
    assert snapshot(finished) == before


def test_two_gpus_without_a_launcher_are_one() -> None:
    """TRL would refuse to spread one model over them, and transformers would do it unasked."""

    class Arguments:
        _n_gpu = 2

        @property
        def n_gpu(self) -> int:
            return self._n_gpu

    assert on_one_device(Arguments()).n_gpu == 1
