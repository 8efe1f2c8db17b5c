"""How a command ends when a signal comes, or when nobody reads its output any more; in real processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import STAGES, done, on, rows

pytestmark = pytest.mark.whole
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"} | {"OMP_NUM_THREADS": "1"}


def start(*words: object, **streams: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "from activedpo_cli.cli.app import main; main()", *map(str, words)],
        env=ENVIRONMENT,
        **streams,
    )


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 130), (signal.SIGINT, 5)])
def test_a_signal_during_a_sitting(finished: Path, sent: signal.Signals, code: int) -> None:
    """Ctrl-C is a person who quits; SIGTERM is not, and a script must not take it for pairs that wait."""
    for stage in STAGES[3:]:
        shutil.rmtree(finished / "iter-002" / stage)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with start(*on(finished, "label", iteration=2), "--oracle", "human", **pipes) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(b"1\n")
        session.stdin.flush()
        shown = b""
        while b"saved" not in shown or not shown.endswith(b"> "):
            shown += session.stdout.read1()
        session.send_signal(sent)
        _, said = session.communicate(timeout=60)
    assert session.returncode == code, said
    assert b"Traceback" not in said
    assert len(rows(finished / "iter-002" / "label" / "labels.jsonl")) == 1
    assert not (finished / "iter-002" / "label" / "manifest.json").exists()


@pytest.mark.parametrize("words", [("ls", "methods"), ("--version",), ("status", "--json")])
def test_output_that_nobody_reads(finished: Path, words: tuple[str, ...]) -> None:
    where = ("--run", finished) if words[0] == "status" else ()
    reader, writer = os.pipe()
    os.close(reader)
    with start(*words, *where, stdout=writer, stderr=subprocess.PIPE) as command:
        os.close(writer)
        _, said = command.communicate(timeout=60)
    assert said == b""
    assert command.returncode in (0, 1, 128 + signal.SIGPIPE), "1 is rich's, which prints tables"


def test_output_that_is_no_longer_read_ends_the_work(finished: Path) -> None:
    """`activedpo show | head`: more than the pipe and Python's buffer hold."""
    path = finished / "iter-002" / "select" / "selection.jsonl"
    selected = rows(path)
    path.write_text("".join(json.dumps(selected[number % 4]) + "\n" for number in range(20000)))
    reader, writer = os.pipe()
    with start(*on(finished, "show"), "--json", stdout=writer, stderr=subprocess.PIPE) as command:
        os.close(writer)
        os.read(reader, 10)
        os.close(reader)
        _, said = command.communicate(timeout=60)
    assert said == b""
    assert command.returncode == 128 + signal.SIGPIPE


def test_a_message_that_nobody_reads_ends_quietly_too(finished: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with start(*on(finished, "generate", iteration=2), stdout=writer, stderr=writer) as command:
        os.close(writer)
        assert command.wait(timeout=60) == 128 + signal.SIGPIPE
    done(*on(finished, "generate", iteration=2))
