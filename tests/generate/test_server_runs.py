"""Whole runs with a model server beside, by the command line: what is asked, recorded, kept and refused."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import done, make_partial, manifest, on, outputs, refused, rows, snapshot
from judge_server import Raw
from model_server import ModelServer, model_server, refusal
from small_models import save_small_model
from zygote import Zygote

from activedpo_cli.generate.backends import _completions, server


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_completions, "growing_pause", lambda failures: 0.001)


SERVED = ("--backend", "server", "--server-url")


def contents(run: Path) -> dict[str, str]:
    return {name: digest for name, (digest, _) in snapshot(run).items()}


def asked_prompts(served: ModelServer) -> list[list[int]]:
    return sorted(body["prompt"][0] for body in served.bodies())


def test_two_iterations_by_the_command_line(new_run: Path, small_model: Path) -> None:
    """A loop in which a server samples for *generate* and *evaluate*; every round has its adapter proved."""
    with model_server(small_model) as served:
        done(*on(new_run, "run"), "--iterations", 2, "--quiet", "--no-report", *SERVED, served.url)
        found = {
            (stage, t): manifest(new_run, t, stage)["summary"]["backend"]
            for stage in ("generate", "evaluate")
            for t in (1, 2)
        }
        initial = json.loads((new_run / "reference/evaluate/manifest.json").read_bytes())["summary"]["backend"]
        names = {t: server.adapter_name(new_run / f"iter-{t:03d}/train/adapter") for t in (1, 2)}
        assert set(served.models) == {"the-base", *names.values()}
        asked = {body["model"] for body in served.bodies()}
        before = len(served.asked)
        assert "up to date" in done(*on(new_run, "generate", iteration=2), *SERVED, "http://127.0.0.1:9/v1").stderr
        assert "up to date" in done(*on(new_run, "evaluate", iteration=2)).stderr
        assert len(served.asked) == before
    assert asked == set(served.models)
    assert initial["adapter"] is None
    assert found["generate", 1]["adapter"] is None
    assert found["generate", 2]["adapter"] == found["evaluate", 1]["adapter"] == names[1]
    assert found["evaluate", 2]["adapter"] == names[2]
    for facts in (initial, *found.values()):
        assert (facts["name"], facts["server_model"], facts["token_ids"]) == ("server", "the-base", "from the server")
        assert facts["worst_difference"] < 1e-3
        assert facts["adapter"] is None or facts["adapter_share"] == pytest.approx(1, abs=0.01)
    metrics = json.loads((new_run / "iter-002/evaluate/metrics.json").read_bytes())
    assert metrics["kl_to_reference"] is None
    assert metrics["reward_mean"] is not None
    settings = manifest(new_run, 2, "generate")["settings"]
    assert settings["generate.backend"] == "server"
    assert not [key for key in settings if key.startswith("generate.server")]
    assert served.url not in json.dumps(manifest(new_run, 2, "generate"))
    done("verify", "--run", new_run)
    done("status", "--run", new_run)


def test_a_resumed_unit_asks_for_what_is_missing_at_another_address(new_run: Path, small_model: Path) -> None:
    with model_server(small_model) as served:
        done(*on(new_run, "generate"), *SERVED, served.url)
        whole = outputs(new_run, 1, "generate")
        drawn = [row["prompt_token_ids"] for row in rows(new_run / "iter-001/generate/responses-00001.jsonl")[::3]]
    make_partial(new_run, 1, "generate", "responses-00001.jsonl")
    with model_server(small_model) as served:
        done(*on(new_run, "generate"), "--server-url", served.url)
        assert asked_prompts(served) == sorted(drawn)
    assert outputs(new_run, 1, "generate") == whole
    assert len(rows(new_run / "iter-001/generate/opened.jsonl")) == 2
    assert set(manifest(new_run, 1, "generate")["logs"]) == {"opened.jsonl"}


def test_a_server_that_ends_halfway_loses_nothing(new_run: Path, small_model: Path) -> None:
    """Units that are there stay, and the same command goes on with another server."""
    with model_server(small_model) as served:

        def change(path: str, body: dict[str, Any], answer: Any) -> Any:
            return refusal(404, "no such model") if len(served.bodies()) > 3 else answer

        served.change = change
        assert "no such model" in refused(1, *on(new_run, "generate"), *SERVED, served.url)
    kept = snapshot(new_run / "iter-001/generate")
    assert [name for name in kept if name.startswith("responses")] == ["responses-00000.jsonl"]
    with model_server(small_model) as served:
        done(*on(new_run, "generate"), "--server-url", served.url)
        assert len(served.bodies()) == 4
    after = snapshot(new_run / "iter-001/generate")
    assert after["responses-00000.jsonl"] == kept["responses-00000.jsonl"]


@pytest.mark.parametrize("kind", ["unreachable", "other base", "no such model"])
def test_what_fails_before_anything_is_made_leaves_nothing(
    new_run: Path, small_model: Path, tmp_path: Path, kind: str
) -> None:
    before = contents(new_run)
    folder = save_small_model(tmp_path / "other", seed=1) if kind == "other base" else small_model
    with model_server(folder) as served:
        url = "http://127.0.0.1:9/v1" if kind == "unreachable" else served.url
        more = ("--server-model", "elsewhere") if kind == "no such model" else ()
        code = {"unreachable": 1, "other base": 4, "no such model": 2}[kind]
        refused(code, *on(new_run, "generate"), *SERVED, url, *more)
        assert contents(new_run) == before
        done(*on(new_run, "generate"))
    assert "backend" not in manifest(new_run, 1, "generate")["summary"]
    assert manifest(new_run, 1, "generate")["settings"]["generate.backend"] == "transformers"


def test_an_adapter_that_is_not_applied_stops_the_next_round(finished: Path, small_model: Path) -> None:
    with model_server(small_model, applies=0.0) as served:
        words = (*on(finished, "generate", iteration=3), *SERVED, served.url)
        assert "does not apply it" in refused(1, *words)
        assert not served.bodies()
    assert not (finished / "iter-003").exists()
    with model_server(small_model) as served:
        done(*words[:-1], served.url)
    assert manifest(finished, 3, "generate")["summary"]["backend"]["adapter"] in served.models


def test_an_address_without_the_backend_is_said(new_run: Path) -> None:
    told = done(*on(new_run, "generate"), "--server-url", "http://127.0.0.1:9/v1").stderr
    assert "generate.server_url" in told
    assert "`generate.backend` is transformers" in told
    for address in ("ftp://x/v1", "http://me:pass@x/v1", "http://x/v1?key=1"):
        refused(2, *on(new_run, "generate", iteration=1), "--force", *SERVED, address)


@pytest.mark.slow
def test_several_processes_ask_one_server(finished: Path, small_model: Path, zygote: Zygote) -> None:
    """Each proves the adapter for itself; together they make what one alone makes with such a server."""
    alone = Path(shutil.copytree(finished, finished.parent / "alone"))
    with model_server(small_model) as served:
        done(*on(alone, "generate", iteration=3), *SERVED, served.url)
        words = (*on(finished, "generate", iteration=3), *SERVED, served.url, "--quiet")
        pids = [zygote.start((*words, "--shard", f"{number}/2"), finished.parent) for number in (0, 1)]
        assert [zygote.wait(pid) for pid in pids] == [0, 0]
        assert sum(path == "/load_lora_adapter" for path, _, _ in served.asked) <= 2
    assert outputs(finished, 3, "generate") == outputs(alone, 3, "generate")
    assert manifest(finished, 3, "generate")["summary"] == manifest(alone, 3, "generate")["summary"]


def test_nobody_waits_for_a_server_after_an_interruption(new_run: Path, small_model: Path, zygote: Zygote) -> None:
    with model_server(small_model) as served:
        served.change = lambda path, body, answer: Raw(hang=True) if "return_token_ids" in body else answer
        pid = zygote.start((*on(new_run, "generate"), *SERVED, served.url), new_run.parent)
        while not served.bodies():
            time.sleep(0.01)
        os.kill(pid, signal.SIGINT)
        began = time.monotonic()
        assert zygote.wait(pid) == 130
        assert time.monotonic() - began < 5, "the server keeps a call for 20 s"
