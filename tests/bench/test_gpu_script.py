"""The command that measures a GPU, run here on thin shapes: no part of it fails."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
PARTS = ("device", "iteration", "select", "features", "number formats")
SMALL = ("--small", "--device", "cpu")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("gpu", FOLDER / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.whole
def test_every_part_is_measured_in_small(script: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "gpu.json"
    found = script.main([*SMALL, "--output", str(output), "--only", *PARTS])
    assert json.loads(output.read_text()) == found
    assert output.stat().st_size < 20_000
    said = capfd.readouterr().err
    assert not [part for part in PARTS if "failed" in found[part] or "skipped" in found[part]], said
    assert {"generate", "featurize", "train", "evaluate"} <= {s for s, m in found["iteration"].items() if m["seconds"]}
    assert len(found["features"]) == 3
    assert found["select"]["same_picks"]
    assert found["number formats"]["least_cosine"] > 0.99


def test_a_part_for_which_no_time_is_left_says_so(script: Any) -> None:
    assert script.main([*SMALL, "--minutes", "0", "--only", "device"]) == {"device": {"skipped": "no time was left"}}


def test_a_part_that_fails_does_not_take_the_others_along(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise ModuleNotFoundError("No module named 'trl'")

    monkeypatch.setitem(script.PARTS, "iteration", fails)
    found = script.main([*SMALL, "--only", "iteration", "select"])
    assert found["iteration"] == {"failed": "ModuleNotFoundError: No module named 'trl'"}
    assert found["select"]["same_picks"]


def test_one_command_passes_its_words_on() -> None:
    words = ["sh", str(FOLDER / "gpu.sh"), "--small"]
    said = subprocess.run(words, env={"PYTHON": "echo"}, capture_output=True, text=True, check=True).stdout
    assert said.split()[0].endswith("benchmarks/gpu.py")
    assert said.split()[1:] == ["--small"]
