"""The real vLLM, by name: `ACTIVEDPO_VLLM_PYTHON=~/vllm/bin/python pytest -n0 -m slow tests/generate/test_real_vllm.py`.

The built-in model is served in float32, on a CPU within minutes; how vLLM is installed for one is told in docs/scale.md.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import done, manifest, on, refused, rows
from test_vllm_backend import within
from zygote import Zygote

from activedpo_cli.generate.backends import _engine

PYTHON = os.environ.get("ACTIVEDPO_VLLM_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(PYTHON is None, reason="ACTIVEDPO_VLLM_PYTHON names no Python with vLLM, see docs/scale.md"),
]
STARTED = ("--backend", "vllm", "--vllm-python", PYTHON)


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that a test has started is left at its end."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.delenv("PYTHONPATH")  # the tests' modules are not for vLLM
    before = processes()
    yield
    assert within(5, lambda: processes() <= before)


def tiny_run(path: Path, rank: int) -> Path:
    settings = {"adapter.r": rank, "generate.num_prompts": 12, "select.budget": 8, "prompts.eval_prompts": 8}
    settings |= {"generate.unit_size": 6, "train.learning_rate": 1e-3, "model.dtype": "float32"}
    assignments = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    done(*on(path, "init"), "--preset", "tiny", *assignments, "--quiet")
    return path


def require_adapters_applied(run: Path, backend: str) -> None:
    """By the records of both iterations: what the server says is what PEFT says, far from what the base says."""
    places = [(stage, t) for t in (1, 2) for stage in ("generate", "evaluate")]
    found = {place: manifest(run, place[1], place[0])["summary"]["backend"] for place in places}
    assert found["generate", 1]["adapter"] is None
    names = [found[place]["adapter"] for place in places[1:]]
    assert names[0] == names[1] != names[2], "that of iteration 1 samples for its evaluation and for iteration 2"
    for place, facts in found.items():
        print(place, json.dumps(facts))
        assert facts["name"] == backend
        assert facts["mean_difference"] < 1e-4
        assert facts["worst_difference"] < 1e-3
        if facts["adapter"] is not None:
            assert facts["adapter_effect"] > 100 * facts["mean_difference"]
            assert facts["adapter_share"] == pytest.approx(1, abs=1e-3)


def processes() -> set[str]:
    """Those of vLLM on this machine: its server, and others that call themselves by its name."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if words.startswith(b"VLLM::") or _engine.SERVER.encode() in words:
            found.add(path.name)
    return found


def test_two_iterations_with_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(tmp_path / "run", rank=8)
    interpreter = _engine.find_interpreter(PYTHON)
    words = ["--model", str(run / "reference/model"), "--dtype", "float32", "--generation-config", "vllm"]
    words += ["--enable-lora", "--max-loras", "1", "--max-lora-rank", "8"]
    words += ["--enforce-eager", "--no-enable-chunked-prefill"] if interpreter.on_cpu else []
    engine = _engine.running_engine(interpreter, words, {}, timeout=600, seconds=1200, note=print)
    try:
        monkeypatch.setenv("KEY_OF_THE_TEST", str(engine.address.key))
        server = ("--backend", "server", "--server-url", engine.address.url)
        server += ("--server-api-key-env", "KEY_OF_THE_TEST")
        done(*on(run, "run"), "--iterations", 2, "--quiet", "--no-report", *server)
        require_adapters_applied(run, "server")
        other = tiny_run(tmp_path / "other", rank=16)
        for stage in ("generate", "featurize", "select", "label", "train"):
            done(*on(other, stage), "--quiet")
        said = refused(1, *on(other, "generate", iteration=2), *server)
        assert "LoRA rank 16 is greater than max_lora_rank 8" in said
        assert "--max-lora-rank 16" in said
    finally:
        engine.close()


def test_two_iterations_with_an_engine_of_the_command(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", rank=16)
    done(*on(run, "run"), "--iterations", 2, "--quiet", "--no-report", *STARTED)
    require_adapters_applied(run, "vllm")
    done("verify", "--run", run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_it(tmp_path: Path, zygote: Zygote, number: int) -> None:
    run = tiny_run(tmp_path / "run", rank=8)
    opened = run / "iter-001/generate/opened.jsonl"
    environment: Any = {"VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": ""}
    words = (*on(run, "generate"), *STARTED, "--max-new-tokens", 200)
    before = processes()
    pid = zygote.start(words, tmp_path, environment=environment)
    assert within(600, opened.exists)
    assert len(processes() - before) > 1
    began = time.monotonic()
    os.kill(pid, number)
    assert zygote.wait(pid) == {signal.SIGKILL: -9}.get(number, 130)
    assert within(20, lambda: processes() <= before)
    print(signal.Signals(number).name, f"nothing left after {time.monotonic() - began:.1f} s")
    assert len(rows(opened)) == 1


def test_a_model_beyond_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not _engine.find_interpreter(PYTHON).on_cpu:
        pytest.skip("this asks for the memory of a CPU")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "100000")
    said = refused(1, *on(tiny_run(tmp_path / "run", rank=8), "generate"), *STARTED)
    assert "vLLM" in said
    assert "VLLM_CPU_KVCACHE_SPACE=1" in said
