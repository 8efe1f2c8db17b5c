"""The script that measures large architectures on a GPU, run here on shapes cut down."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from activedpo_cli.models.random_models import ARCHITECTURES, random_config

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "architectures.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("architectures", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_small_shapes_go_all_the_way(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "rows.json"
    script.main(["--small", "--peak-tflops", "1", "--output", str(output)])
    rows = json.loads(output.read_text())
    assert [row["model"] for row in rows] == list(script.NAMES)
    for row in rows:
        assert row["seconds_for_3000"] == pytest.approx(3000 / 4 * sorted(row["all_features_seconds"])[0])
        assert min(row["ratio_to_plain"], row["peak_gib"], row["share_of_peak"], row["cosine_rmse"]) > 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows)
    assert len({line.count("|") for line in table}) == 1


@pytest.mark.parametrize(
    ("name", "billions"),
    [("random-gemma-2b", 2.506), ("random-qwen3-4b", 4.022), ("random-llama-2-7b", 6.738), ("tiny-llama-15m", 0.01554)],
)
def test_architectures_have_as_many_parameters_as_their_models(name: str, billions: float) -> None:
    """Numbers that the models' own pages give: nothing is allocated on the meta device."""
    from transformers import AutoModelForCausalLM

    assert name in ARCHITECTURES
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(random_config(name))
    assert sum(weight.numel() for weight in model.parameters()) / 1e9 == pytest.approx(billions, rel=2e-3)
