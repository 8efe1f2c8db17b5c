"""Signals in this process, and in one that is only beginning."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import activedpo

from activedpo_cli.base import interruption
from activedpo_cli.base.errors import Terminated
from activedpo_cli.cli.signals import stoppable

PROBE = """
import os, signal, sys, threading, time
number, module = int(sys.argv[1]), sys.argv[2]
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), number)
sys.meta_path.insert(0, Watch())
sys.argv = ["activedpo", *sys.argv[3:]]
from activedpo_cli.__main__ import main
main()
"""


@pytest.fixture(autouse=True)
def _hears_signals() -> Iterator[None]:
    """Also where tests run in the background, which ignores Ctrl-C, or under `nohup`, which ignores SIGHUP."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    _hear()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _hear() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _wait_after(begin: Callable[[], object]) -> None:
    begin()
    time.sleep(10)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated), (signal.SIGHUP, Terminated)],
)
def test_a_signal_ends_the_work_and_leaves_no_trace(number: int, kind: type[BaseException]) -> None:
    before = [signal.getsignal(other) for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(kind) as caught, stoppable():
        _wait_after(lambda: os.kill(os.getpid(), number))
    assert type(caught.value) is kind
    assert not interruption.is_requested()
    assert [signal.getsignal(other) for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_what_is_ignored_stays_ignored() -> None:
    """As SIGHUP under `nohup`, and Ctrl-C where a shell has put the command in the background."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_falls_into_a_finalizer_is_raised_again(capsys: pytest.CaptureFixture[str]) -> None:
    class Falls:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    began = time.monotonic()
    with pytest.raises(Terminated), stoppable():
        _wait_after(Falls)
    assert time.monotonic() - began < 5
    assert capsys.readouterr().err == ""


def test_a_swallowed_signal_stops_what_asks_before_it_stores() -> None:
    with stoppable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except BaseException:
            pass
        with pytest.raises(Terminated):
            interruption.raise_if_requested()
    interruption.raise_if_requested()


@pytest.mark.whole
@pytest.mark.parametrize(
    ("number", "module"), [(signal.SIGINT, "typer"), (signal.SIGTERM, "yaml"), (signal.SIGHUP, "torch.nn")]
)
def test_a_signal_during_an_import(finished_original: Path, number: int, module: str) -> None:
    words = ["generate", "--run", str(finished_original), "--force", "--iteration", "1"]
    command = [sys.executable, "-c", PROBE, str(int(number)), module, *words]
    told = subprocess.run(
        command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, restore_signals=True,
        preexec_fn=_hear,
    )  # fmt: skip
    assert told.returncode == 130, told.stderr
    assert told.stderr.startswith("interrupted: ")
    assert told.stderr.count("\n") <= 2, told.stderr


TURNED_RULE = """
import os, signal, time
def score(prompts, responses):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    except BaseException as error:
        raise ValueError("a library's own words") from error
"""


def test_what_is_kept_is_said_where_a_library_raises_its_own_error(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "turned_rule.py").write_text(TURNED_RULE)
    monkeypatch.chdir(tmp_path)
    run = ("--run", finished, "--iteration", 2)
    result = activedpo("label", *run, "--oracle", "python:turned_rule:score", "--force", "--quiet")
    assert result.exit_code == 130
    assert "interrupted: what was finished is kept, " in result.stderr
    assert f"in `{finished}/iter-002/" in result.stderr
    assert "library's own words" not in result.stderr
