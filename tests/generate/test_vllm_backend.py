"""`--backend vllm`: what it starts, with what, how it fails, and that nothing of it is left, however the command ends.

`tests/fake_vllm` stands in for vLLM, in processes of its own; one test by name takes a real one.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_line import done, make_partial, manifest, on, outputs, refused, rows
from model_server import ModelServer, model_server
from small_runs import small_run
from zygote import Zygote

from activedpo_cli.base.errors import UsageError
from activedpo_cli.generate.backends import _completions, _engine, vllm

FAKE = Path(__file__).parents[1] / "fake_vllm"
WORDS = ("--backend", "vllm", "--vllm-python", sys.executable)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where engines note that they were started; their temporary folders are there too, and a fake vLLM is installed."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAKE), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("FAKE_VLLM_NOTES", str(tmp_path / "notes"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(_completions, "growing_pause", lambda failures: 0.001)
    monkeypatch.setattr(_engine, "LOOK_SECONDS", 0.02)
    return tmp_path


@pytest.fixture
def served(place: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with model_server(small_model) as running:
        monkeypatch.setenv("FAKE_VLLM_BEHIND", running.url)
        yield running


def started(place: Path) -> list[dict[str, Any]]:
    return rows(place / "notes") if (place / "notes").exists() else []


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def left(place: Path) -> list[Any]:
    """Processes of engines that are there, and their folders."""
    pids = [pid for note in started(place) for pid in note["pids"] if is_there(pid)]
    return [*pids, *(path for path in place.glob("activedpo-vllm-*") if path.is_dir())]


def within(seconds: float, sign: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not sign():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def told(note: dict[str, Any]) -> dict[str, str]:
    """The arguments of an engine by their names; those without a value have the next one's name."""
    words = note["arguments"]
    return dict(zip(words, [*words[1:], ""], strict=True))


@pytest.mark.whole
def test_base_and_adapter(new_run: Path, served: ModelServer, place: Path, small_model: Path) -> None:
    """A loop: an engine for each stage that samples, of π_SFT alone or with the adapter, which is proved."""
    done(*on(new_run, "run"), "--iterations", 1, "--quiet", "--no-report", *WORDS)
    done(*on(new_run, "generate", iteration=2))
    first, initial, evaluating, second = started(place)
    assert within(2, lambda: not left(place)), left(place)
    for note in (first, initial, evaluating, second):
        assert told(note)["--model"] == str(small_model)
        assert told(note)["--dtype"] == "float32"
        assert told(note)["--host"] == "127.0.0.1"
        variables = note["environment"]
        assert variables["VLLM_NO_USAGE_STATS"] == variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert "--enable-lora" not in initial["arguments"]
    for note in (first, evaluating, second):
        assert told(note)["--max-lora-rank"] == "8", "the run's 2 rounded up to what vLLM takes"
    facts = {
        stage: manifest(new_run, t, stage)["summary"]["backend"] for stage, t in (("generate", 2), ("evaluate", 1))
    }
    for found in facts.values():
        assert found["name"] == "vllm"
        assert found["adapter_share"] == pytest.approx(1, abs=0.01)
        assert "server_model" not in found
    settings = manifest(new_run, 2, "generate")["settings"]
    assert settings["generate.backend"] == "vllm"
    assert not [key for key in settings if key.startswith(("generate.vllm", "generate.server"))]
    assert "up to date" in done(*on(new_run, "generate", iteration=2), "--vllm-python", "/nowhere").stderr
    assert len(started(place)) == 4
    done("verify", "--run", new_run)


@pytest.mark.whole
def test_what_is_there_is_kept_and_an_adapter_not_applied_stops(
    finished: Path, served: ModelServer, place: Path
) -> None:
    served.applies = 0.0
    assert "vLLM has loaded the adapter" in refused(1, *on(finished, "generate", iteration=3), *WORDS)
    assert not (finished / "iter-003").exists()
    served.applies, served.models = 1.0, {served.name: served.models[served.name]}
    done(*on(finished, "generate", iteration=3), *WORDS)
    assert told(started(place)[-1])["--max-lora-rank"] == "8", "the run's 2 rounded up to what vLLM takes"
    assert manifest(finished, 3, "generate")["summary"]["backend"]["adapter_share"] == pytest.approx(1, abs=0.01)
    whole = outputs(finished, 3, "generate")
    make_partial(finished, 3, "generate", "responses-00001.jsonl")
    before = len(served.bodies())
    done(*on(finished, "generate", iteration=3))
    assert len(served.bodies()) - before == 2
    assert outputs(finished, 3, "generate") == whole
    assert within(2, lambda: not left(place)), left(place)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("memory", ("Available memory on node 0", "code 1", "VLLM_CPU_KVCACHE_SPACE=1")),
        ("lora", ("GPT2LMHeadModel does not support LoRA yet", "--backend transformers")),
        ("architecture", ("['NovelForCausalLM'] are not supported", "--backend transformers")),
        ("killed", ("code -9, killed as the system does where memory is short", "VLLM_CPU_KVCACHE_SPACE=1")),
    ],
)
def test_an_engine_that_does_not_come_up(
    new_run: Path, served: ModelServer, place: Path, monkeypatch: pytest.MonkeyPatch, fault: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("FAKE_VLLM_FAULT", fault)
    said = refused(1, *on(new_run, "generate"), *WORDS)
    assert "vLLM has ended before it was up" in said
    for word in words:
        assert word in said
    assert "Engine core initialization failed" not in said
    [log] = place.glob("activedpo-vllm-*.log")
    assert str(log) in said
    assert not (new_run / "iter-001").exists()
    assert within(2, lambda: not left(place)), left(place)


@pytest.mark.whole
def test_arguments_that_it_does_not_know(new_run: Path, served: ModelServer, place: Path) -> None:
    said = refused(1, *on(new_run, "generate"), *WORDS, "--vllm-args=--no-such-thing 3")
    assert "unrecognized arguments: --no-such-thing" in said
    assert "generate.vllm_args" in said
    for words in ("--port 80", "--dtype=bfloat16", "--quantization fp8"):
        assert "follows from the run" in refused(2, *on(new_run, "generate"), *WORDS, f"--vllm-args={words}")
    assert "No closing quotation" in refused(2, *on(new_run, "generate"), *WORDS, "--vllm-args='")
    done(*on(new_run, "generate"), *WORDS, "--vllm-args=--max-num-seqs 7")
    assert told(started(place)[-1])["--max-num-seqs"] == "7"


@pytest.mark.whole
def test_a_port_that_another_takes_meanwhile(
    new_run: Path, served: ModelServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM_FAULT", "port")
    done(*on(new_run, "generate"), *WORDS)
    assert len({told(note)["--port"] for note in started(place)}) == 2
    assert within(2, lambda: not left(place)), left(place)


@pytest.mark.whole
def test_an_engine_that_takes_too_long(
    new_run: Path, served: ModelServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM_FAULT", "slow")
    monkeypatch.setattr(_engine, "NOTED_SECONDS", 0.3)
    said = refused(1, *on(new_run, "generate"), *WORDS, "--vllm-start-timeout", 2)
    assert "s: Loading safetensors" in said
    assert "is not up after 2 s" in said
    assert within(2, lambda: not left(place)), left(place)


@pytest.mark.whole
def test_an_engine_that_dies_at_work(
    new_run: Path, served: ModelServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM_FAULT", "dies at work")
    said = refused(1, *on(new_run, "generate"), *WORDS)
    assert "vLLM has ended while it was asked" in said
    assert "RuntimeError: the engine is worn out" in said
    assert "every response before is kept" in said
    assert within(2, lambda: not left(place)), left(place)
    monkeypatch.delenv("FAKE_VLLM_FAULT")
    done(*on(new_run, "generate"))


@pytest.mark.whole
def test_an_engine_that_hears_no_signal(
    new_run: Path, served: ModelServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM_FAULT", "deaf")
    monkeypatch.setattr(_engine, "END_SECONDS", 0.2)
    done(*on(new_run, "generate"), *WORDS)
    assert within(2, lambda: not left(place)), left(place)


@pytest.mark.whole
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("when", ["it starts", "it samples"])
def test_nothing_is_left_of_it_when_the_command_is_stopped(
    new_run: Path, served: ModelServer, place: Path, zygote: Zygote, number: int, when: str
) -> None:
    environment = {name: os.environ[name] for name in ("PYTHONPATH", "FAKE_VLLM_NOTES", "FAKE_VLLM_BEHIND")}
    environment |= {"TMPDIR": str(place), "FAKE_VLLM_FAULT": "slow" if when == "it starts" else ""}
    if when == "it samples":
        served.change = lambda path, body, answer: time.sleep(0.2) or answer if "return_token_ids" in body else answer

    def is_so() -> bool:
        return bool(served.bodies()) if when == "it samples" else bool(started(place))

    code = zygote.stop_when((*on(new_run, "generate"), *WORDS), place, is_so, number, environment=environment)
    assert code == {signal.SIGKILL: -9}.get(number, 130)
    assert within(5, lambda: not left(place)), left(place)
    served.change = lambda path, body, answer: answer
    done(*on(new_run, "generate"), *WORDS)
    assert within(2, lambda: not left(place)), left(place)


@pytest.mark.whole
def test_several_processes_start_one_each(finished: Path, served: ModelServer, place: Path, zygote: Zygote) -> None:
    """Together they make what one alone makes."""
    alone = Path(shutil.copytree(finished, finished.parent / "alone"))
    done(*on(alone, "generate", iteration=3), *WORDS)
    environment = {name: os.environ[name] for name in ("PYTHONPATH", "FAKE_VLLM_NOTES", "FAKE_VLLM_BEHIND")}
    words = (*on(finished, "generate", iteration=3), *WORDS, "--quiet")
    environment["TMPDIR"] = str(place)
    pids = [zygote.start((*words, "--shard", f"{number}/2"), place, environment=environment) for number in (0, 1)]
    assert [zygote.wait(pid) for pid in pids] == [0, 0]
    assert len(started(place)) in (2, 3), "one that comes late finds nothing to do"
    assert within(5, lambda: not left(place)), left(place)
    assert outputs(finished, 3, "generate") == outputs(alone, 3, "generate")


@pytest.mark.whole
def test_nothing_is_left_of_it_when_the_guard_is_killed(new_run: Path, served: ModelServer, place: Path) -> None:
    """Of the three that know of the engine, one is enough."""

    def change(path: str, body: dict[str, Any], answer: Any) -> Any:
        if "return_token_ids" in body:
            engine = started(place)[0]["pids"][0]
            os.kill(int(Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
            served.change = lambda path, body, answer: answer
        return answer

    served.change = change
    assert "vLLM has ended while it was asked" in refused(1, *on(new_run, "generate"), *WORDS)
    assert within(2, lambda: not left(place)), left(place)


def test_an_interpreter_without_vllm(new_run: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    said = refused(1, *on(new_run, "generate"), "--backend", "vllm")
    assert f"`{sys.executable}` has no vLLM" in said
    assert "~/vllm/bin/pip install vllm" in said
    assert "--vllm-python ~/vllm/bin/python" in said
    for program, words in (("/nowhere/python", "there is no program"), (shutil.which("true"), "does not answer")):
        assert words in refused(2, *on(new_run, "generate"), "--backend", "vllm", "--vllm-python", program)
    assert not (new_run / "iter-001").exists()


def test_a_rank_beyond_its_limits_is_refused_before_anything_is_sampled(
    tmp_path: Path, small_model: Path, prompts_file: Path, place: Path
) -> None:
    run = small_run(tmp_path / "large", small_model, prompts_file, adapter__r=600)
    said = refused(2, *on(run, "generate"), *WORDS)
    assert "adapter.r is 600" in said
    assert "rank 512 at most" in said
    assert not started(place)
    with pytest.raises(UsageError, match="has rank 600, and vLLM serves 512 at most"):
        vllm._limit_for(600)


def test_settings_without_the_backend_are_said(new_run: Path) -> None:
    said = done(*on(new_run, "generate"), "--vllm-args=--max-num-seqs=3").stderr
    assert "generate.vllm_args" in said
    assert "`generate.backend` is transformers" in said


def test_what_it_is_told_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is free there, without a tenth of all for this process; and the GPU of this process, if it is not the first."""
    device = torch.device("cuda", 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (60, 80))
    policy: Any = SimpleNamespace(
        model=SimpleNamespace(dtype=torch.bfloat16, device=device),
        adapter=None,
        rank=None,
        reference="org/model",
        revision="main",
    )
    words = vllm._arguments(policy, _engine.Interpreter("python", "0.32.0", on_cpu=False), ["--max-num-seqs=9"])
    assert dict(zip(words, words[1:], strict=False))["--gpu-memory-utilization"] == "0.65"
    assert words[:8] == [
        "--model",
        "org/model",
        "--revision",
        "main",
        "--tokenizer-revision",
        "main",
        "--dtype",
        "bfloat16",
    ]
    assert words[-1] == "--max-num-seqs=9"
    assert vllm._variables(device, [], {}) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert vllm._variables(device, [], {"CUDA_VISIBLE_DEVICES": "4,6"}) == {"CUDA_VISIBLE_DEVICES": "6"}
    assert vllm._variables(device, ["--tensor-parallel-size=2"], {}) == {}
    assert vllm._variables(torch.device("cuda", 0), [], {}) == vllm._variables(torch.device("cpu"), [], {}) == {}
