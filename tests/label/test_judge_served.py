"""A judge at a real local server: the code of `transformers serve` with a tiny random model."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import on, refused, rows
from small_models import save_small_model

SERVER = Path(__file__).parent.parent / "serve_model.py"
SECONDS_TO_START = 120

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The name of the model and the address of the server."""
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    model = save_small_model(tmp_path_factory.mktemp("served") / "judge", tokenizer="bytes-chat")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, SERVER, model, str(port)])
    try:
        until = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < until and process.poll() is None:
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        assert process.poll() is None, "the server did not start"
        yield str(model), f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("structured", ["auto", "none"])
def test_a_real_server_is_asked_and_what_a_random_model_says_is_no_verdict(
    many_selected: Path, served: tuple[str, str], structured: str
) -> None:
    model, url = served
    values = {"base_url": url, "structured": structured, "max_tokens": 8, "tries": 1, "concurrency": 1, "max_calls": 6}
    settings = [word for key, value in values.items() for word in ("--set", f"label.judge.{key}={value}")]
    said = refused(5, *on(many_selected, "label"), "--oracle", f"judge:{model}", *settings)
    assert "24 of 24 pairs have no verdict" in said
    path = many_selected / "iter-001" / "label" / "judge-replies.jsonl"
    replies = [row["reply"] for row in rows(path) if row["event"] == "reply"]
    assert len(replies) == 6
    assert {reply["finish_reason"] for reply in replies} <= {"length", "stop"}
    assert all(reply["completion_tokens"] == 8 for reply in replies if reply["finish_reason"] == "length")
    assert all(reply["prompt_tokens"] > 1000 for reply in replies), "a token a byte"


def test_a_temperature_that_is_not_sent(many_selected: Path, served: tuple[str, str]) -> None:
    model, url = served
    values = {"base_url": url, "temperature": "null", "max_tokens": 4, "tries": 1, "max_calls": 2}
    settings = [word for key, value in values.items() for word in ("--set", f"label.judge.{key}={value}")]
    refused(5, *on(many_selected, "label"), "--oracle", f"judge:{model}", *settings)


def test_another_model_than_the_one_that_is_served(many_selected: Path, served: tuple[str, str]) -> None:
    model, url = served
    said = refused(
        1, *on(many_selected, "label"), "--oracle", "judge:another-model", "--set", f"label.judge.base_url={url}"
    )
    assert "HTTP 400" in said
    assert model in " ".join(said.split())
