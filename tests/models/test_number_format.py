"""A user whose processor is slow in the weights' format hears of it before hours go by, and nobody else does."""

import json
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from command_line import done, on
from small_runs import SMALL, small_run

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.policy import number_format

WAY_OUT = "`--set model.dtype=float32`"


def processor_that_takes(times: float, monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    asked: list[torch.dtype] = []

    def times_slower(dtype: torch.dtype) -> float:
        asked.append(dtype)
        return times

    monkeypatch.setattr(number_format, "times_slower", times_slower)
    return asked


@pytest.mark.parametrize(("times", "is_told"), [(8.0, True), (1.4, False)])
def test_generate_tells_where_the_format_is_slow(
    tmp_path: Path, small_model: Path, prompts_file: Path, monkeypatch: pytest.MonkeyPatch, times: float, is_told: bool
) -> None:
    asked = processor_that_takes(times, monkeypatch)
    run = small_run(tmp_path / "run", small_model, prompts_file, model__dtype="bfloat16")
    told = " ".join(done(*on(run, "generate")).stderr.split())
    assert ("a product of matrices takes 8 times as long as in float32" in told) is is_told
    assert (WAY_OUT in told) is is_told
    assert asked == [torch.bfloat16]
    assert WAY_OUT not in done(*on(run, "generate")).stderr
    assert len(asked) == 1


def test_float32_is_not_measured(
    tmp_path: Path, small_model: Path, prompts_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = processor_that_takes(8.0, monkeypatch)
    run = small_run(tmp_path / "run", small_model, prompts_file, model__dtype="float32")
    assert "float32" not in done(*on(run, "generate")).stderr
    assert not asked


def test_doctor_tells_before_there_is_a_run(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor_that_takes(8.0, monkeypatch)
    # How much stages need is tested elsewhere, and the processor's true speed in this format is low on many machines.
    monkeypatch.setattr("activedpo_cli.health.needs.estimate", Mock(side_effect=ActiveDPOError("not asked here")))
    small = [word for key in ("adapter.r", "adapter.lora_alpha") for word in ("--set", f"{key}={SMALL[key]}")]
    found = json.loads(done("doctor", "--model", small_model, *small, "--set", "model.dtype=bfloat16", "--json").stdout)
    assert found["usable"]
    (check,) = (check for check in found["checks"] if check["name"] == "number format")
    assert check["state"] == "warning"
    assert "bfloat16" in check["says"]
    assert WAY_OUT in check["do"]


def test_the_shortest_turns_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that a product of matrices moves on: 9 the first time, then 7 in bfloat16 and 2 in float32."""
    now, taken = 0.0, {torch.bfloat16: [9.0, 7.0, 8.0], torch.float32: [9.0, 3.0, 2.0]}

    def product(a: torch.Tensor, _: torch.Tensor) -> None:
        nonlocal now
        now += taken[a.dtype].pop(0)

    monkeypatch.setattr(number_format.torch, "mm", product)
    monkeypatch.setattr(number_format.time, "perf_counter", lambda: now)
    assert number_format.times_slower(torch.bfloat16) == 3.5
