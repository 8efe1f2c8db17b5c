"""Pipes, devices and sparse files in the place of a run's own files are refused with their name; nobody waits for them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import activedpo, on

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.engine.parts import Part
from activedpo_cli.engine.units import AtOnce
from activedpo_cli.select.from_files import older
from activedpo_cli.store.manifest import Started
from activedpo_cli.store.stage_folder import StageFolder

FILES = (
    "run.json",
    "config.yaml",
    "prompts.jsonl",
    "reference/base.json",
    "reference/initial-adapter/manifest.json",
    "reference/evaluate/metrics.json",
    "iter-002/generate/manifest.json",
    "iter-002/generate/prompts.json",
    "iter-002/generate/responses-00000.jsonl",
    "iter-002/featurize/features-00000.safetensors",
    "iter-002/select/selection.jsonl",
    "iter-002/label/labels.jsonl",
    "iter-002/label/outcomes.jsonl",
    "iter-002/train/adapter/adapter_config.json",
    "iter-002/train/adapter/adapter_model.safetensors",
    "iter-002/evaluate/metrics.json",
)
WANTED = Started(stage="choice", stage_version=1, iteration=0, settings={}, inputs={})
COMMANDS = (("status",), ("verify",), ("show", "responses"), ("compare", "--iteration", 2), ("generate",), ("label",))


@pytest.fixture
def in_time() -> Iterator[None]:
    """Fail where a command waits."""

    def fail(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", FILES)
def test_a_pipe(finished: Path, in_time: None, name: str) -> None:
    (finished / name).unlink()
    os.mkfifo(finished / name)
    ends = [activedpo(*on(finished, *words)) for words in COMMANDS]
    assert any(name.rpartition("/")[2] in result.output for result in ends)


@pytest.mark.parametrize(
    "name", ["run.json", "config.yaml", "iter-002/select/manifest.json", "iter-002/select/selection.jsonl"]
)
def test_a_sparse_file(finished: Path, in_time: None, name: str) -> None:
    os.truncate(finished / name, 2**33)
    ends = [activedpo(*on(finished, *words)) for words in COMMANDS if words not in (("verify",), ("generate",))]
    assert any(name.rpartition("/")[2] in result.output for result in ends)


@pytest.mark.parametrize("place", [older._record_path, older._log_path])
def test_a_sparse_file_in_the_place_of_what_an_earlier_version_left(tmp_path: Path, place: Any) -> None:
    output = tmp_path / "picks.jsonl"
    output.write_text("{}")
    left = place(output)
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"")
    os.truncate(left, 2**33)
    part = Part(StageFolder(tmp_path / "none"), tmp_path / "lock", WANTED, open=lambda folder: AtOnce(dict))
    look = older.finished if place is older._record_path else older.adopt_picks
    with pytest.raises(InvalidDataError, match=left.name):
        look(part, output)


def test_a_pipe_where_a_file_is_to_be_written(new_run: Path, in_time: None) -> None:
    os.mkfifo(new_run / ".config.yaml.tmp")
    result = activedpo(*on(new_run, "generate"), "--num-prompts", 2, "--max-new-tokens", 2)
    assert result.exit_code == 1
    assert "config.yaml" in result.stderr
