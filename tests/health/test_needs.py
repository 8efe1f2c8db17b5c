"""`doctor --model` says what stages will need, before anything is loaded."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import done, refused
from small_models import save_small_model
from small_policies import load

from activedpo_cli.base.config import build_config, nested
from activedpo_cli.bench.imagined import Adapter, ImaginedModel
from activedpo_cli.health import needs
from activedpo_cli.health.needs import Needs, Speed, estimate
from activedpo_cli.models.loading import configuration_at


def test_every_stage_that_loads_the_model_is_told(small_model: Path) -> None:
    small = ("--set", "generate.num_prompts=7", "--set", "adapter.r=4", "--set", "generate.max_new_tokens=8", "--json")
    found = json.loads(done("doctor", "--model", small_model, *small).stdout)
    told = {check["name"]: check["says"] for check in found["checks"]}
    for stage in ("generate", "featurize", "train", "evaluate"):
        assert " GB, " in told[f"memory and time: {stage}"]
    assert "21 responses" in told["memory and time: generate"]
    assert found["usable"]


def test_weights_that_exceed_what_is_free_are_not_loaded(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "free_memory", lambda *_, **__: 1000)
    monkeypatch.setattr("activedpo_cli.health.model_checks.load_base", lambda *_, **__: pytest.fail("was loaded"))
    said = refused(3, "doctor", "--model", small_model, "--json")
    assert "model.quantization=4bit" in said


def test_a_stage_that_exceeds_it_is_a_warning(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "free_memory", lambda *_, **__: 10**6)
    told = json.loads(done("doctor", "--model", small_model, "--set", "adapter.r=4", "--json").stdout)["checks"]
    (train,) = (check for check in told if check["name"] == "memory and time: train")
    assert train["state"] == "warning"
    assert "per_device_train_batch_size=1" in train["do"]


@pytest.mark.parametrize("bits", ["none", "8bit", "4bit"])
def test_weights_take_what_is_said(bits: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "num_attention_heads": 4}
    folder = save_small_model(tmp_path, **sizes)
    config = build_config(nested({"model.quantization": bits}))
    imagined = ImaginedModel(configuration_at(str(folder)), torch.float32, Adapter(4, "all-linear"))
    said = Needs(imagined, config, "cpu", Speed(1.0, 1.0), prompt=16).weights
    if bits != "none":
        pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    model = load(folder, quantization=bits)
    assert said == pytest.approx(sum(weight.nbytes for weight in model.parameters()), rel=0.03)


def test_the_number_format_is_read_from_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where config.json does not name it; nothing else of them is read."""
    monkeypatch.setattr(
        needs, "measured_speed", lambda *_: Speed(1.0, 1.0)
    )  # for seconds, where half precision is slow
    folder = save_small_model(tmp_path)
    load(folder).to(torch.bfloat16).save_pretrained(folder)
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in described.items() if "dtype" not in k}))
    half = estimate(build_config({}), (str(folder), None), torch.device("cpu"), 16).weights
    assert half == 2 * sum(weight.numel() for weight in load(folder).parameters())


def test_an_architecture_that_can_not_be_imagined_is_looked_at_all_the_same(tmp_path: Path) -> None:
    model = save_small_model(tmp_path, "mixtral")
    found = json.loads(done("doctor", "--model", model, "--set", "adapter.r=2", "--json").stdout)
    assert found["usable"]
    first, second, *_ = found["checks"]
    assert first["says"].startswith("can't be told: passes of this architecture can't be imagined")
    assert second["name"] == "the model loads"


@pytest.mark.parametrize(("rate", "largest"), [(0.3e9, 192), (2e9, 256), (1e12, 768)])
def test_a_slow_processor_is_measured_by_small_products(
    rate: float, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of this many operations a second: none of its products takes much longer than what tells how quick it is."""
    taken = []

    def seconds(work: Callable[[], torch.Tensor], device: torch.device) -> float:
        result = work()
        if result.ndim == 1:
            return result.nbytes / 1e10
        taken.append((2 * len(result) ** 3 / rate, len(result)))
        return taken[-1][0]

    monkeypatch.setattr("activedpo_cli.bench.measuring.seconds", seconds)
    found = needs.measured_speed(torch.device("cpu"), torch.float32)
    assert found.operations == pytest.approx(rate)
    assert found.bytes == pytest.approx(2e10)
    assert max(taken)[1] == largest
    assert max(taken)[0] < 0.05
