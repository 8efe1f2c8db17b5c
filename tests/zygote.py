"""A process that has imported everything and computed nothing, and forks to run commands: real processes, quickly."""

import functools
import gc
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faults import Fault, note_answers
from report_page import draw_quickly

WITHOUT_THREADS = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""A fork has none of its parent's threads, but the locks that they held."""


class Zygote:
    """Starts commands in processes of their own, several at once if need be."""

    def __init__(self) -> None:
        self.last_pid = 0
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **WITHOUT_THREADS},
        )

    def start(
        self,
        words: tuple[Any, ...],
        folder: Path,
        terminal: str | None = None,
        stdout: Path | None = None,
        stderr: Path | None = None,
        environment: dict[str, str] | None = None,
        *,
        stdin: Path | None = None,
        fault: dict[str, Any] | None = None,
        answers: Path | None = None,
        without: tuple[str, ...] = (),
        slowed: str | None = None,
        blank_figures: bool = False,
    ) -> int:
        """Run a command in a folder, silently or at a terminal (of that name); returns the process id at once.

        Args:
            fault: What fails of the changes that the command makes to files (`faults.Fault`, as a dictionary).
            answers: Where the ids of pairs are noted whose labels it has acknowledged.
            without: Packages that can't be imported, as though they were not installed.
            slowed: `MODULE:CLASS.METHOD` of ours that takes 0.2 s longer, so that a signal comes in time.
            blank_figures: Draw none, and write files without a picture in their places.

        """
        request = {
            "words": [str(word) for word in words],
            "folder": str(folder),
            "terminal": terminal,
            "stdout": str(stdout) if stdout else None,
            "stderr": str(stderr) if stderr else None,
            "environment": environment or {},
            "stdin": str(stdin) if stdin else None,
            "fault": fault,
            "answers": str(answers) if answers else None,
            "without": without,
            "slowed": slowed,
            "blank_figures": blank_figures,
        }
        self.last_pid = self._asked(request)
        assert self.last_pid > 1, "a signal to it would go to whole groups of processes"
        return self.last_pid

    def wait(self, pid: int | None = None) -> int:
        """The exit status of a command, of the last one unless said otherwise; negative for the signal that ended it."""
        return self._asked({"wait": pid or self.last_pid})

    def run(self, words: tuple[Any, ...], folder: Path, **options: Any) -> int:
        """Run a command and return its exit status."""
        self.start(words, folder, **options)
        return self.wait()

    def stop_when(
        self, words: tuple[Any, ...], folder: Path, sign: Callable[[], bool], number: int, **more: Any
    ) -> int:
        """Run a command, send it a signal as soon as `sign` is seen, and return its exit status."""
        pid = self.start(words, folder, **more)
        deadline = time.monotonic() + 60
        while not sign():
            assert time.monotonic() < deadline, f"nothing of it came to pass: {words}"
            time.sleep(0.001)
        with suppress(ProcessLookupError):  # it may have ended by itself just then
            os.kill(pid, number)
        return self.wait()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)

    def _asked(self, request: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def _run(
    words: list[str],
    folder: str,
    terminal: str | None,
    environment: dict[str, str],
    fault: dict[str, Any] | None,
    answers: str | None,
    without: list[str],
    slowed: str | None,
    blank_figures: bool,
    **streams: str | None,
) -> None:
    os.chdir(folder)
    if terminal:
        for name in ("COLUMNS", "LINES"):  # the size is the terminal's, not that of whoever runs the tests
            os.environ.pop(name, None)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background inherit that it is ignored,
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and under `nohup` this one
    os.setsid()  # the terminal opened next is then the one whose Ctrl-C this process hears
    silence = os.open(terminal or os.devnull, os.O_RDWR)
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        path = streams[name]
        flags = os.O_RDONLY if name == "stdin" else os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        os.dup2(os.open(path, flags, 0o666) if path else silence, descriptor)
    if fault:
        Fault(**fault).install()
    if answers:
        note_answers(answers)
    if without:
        _leave_out(set(without))
    if slowed:
        _slow_down(*slowed.split(":"))
    if blank_figures:
        draw_quickly(pytest.MonkeyPatch())
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")  # buffered as befits a terminal
    sys.argv = ["activedpo", *words]
    from activedpo_cli.cli.app import main

    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        os._exit(code)


class _Missing:
    def __init__(self, packages: set[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _leave_out(packages: set[str]) -> None:
    """Our own modules are imported anew, and find those packages missing."""
    for name in list(sys.modules):
        if name.partition(".")[0] in packages | {"activedpo_cli"}:
            del sys.modules[name]
    sys.meta_path.insert(0, _Missing(packages))  # type: ignore[arg-type]


def _slow_down(module: str, method: str) -> None:
    owner, name = method.split(".")
    kind = getattr(importlib.import_module(module), owner)
    plain = getattr(kind, name)

    def slowly(*given: Any, **named: Any) -> Any:
        time.sleep(0.2)
        return plain(*given, **named)

    setattr(kind, name, slowly)


def quicken_accelerate() -> None:
    """It looks for PEFT on the disk several times a step, and walks twice a training through all that tests have loaded."""
    imports, memory = (sys.modules.get(f"accelerate.utils.{name}") for name in ("imports", "memory"))
    if imports and memory and not hasattr(imports._is_package_available, "cache_info"):
        imports._is_package_available = functools.cache(imports._is_package_available)
        memory.gc = SimpleNamespace(collect=lambda: 0)


def _warm_up() -> None:
    """Do everything once: what libraries import, compile and remember at their first call is half of a small command."""
    from command_line import done, on
    from small_models import save_small_model
    from small_runs import small_run
    from tqdm import tqdm

    from activedpo_cli.reports.drawing import draw
    from activedpo_cli.reports.plot import Panel, Plot, Series

    tqdm.monitor_interval = 0  # else a thread watches its bars
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        prompts = Path(folder) / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": f"Question {number}?"}) + "\n" for number in range(12)))
        run = small_run(Path(folder) / "run", save_small_model(Path(folder) / "llama", num_hidden_layers=1), prompts)
        with pytest.MonkeyPatch.context() as patch:
            draw_quickly(patch)
            done(*on(run, "run"), "--iterations", 1, "--quiet")
    rows = [Series(label=name, x=[0.0, 1.0], y=[place, 0.5], sources=[]) for place, name in enumerate("ab")]
    panels = [Panel(title="A figure", x_label="x", y_label="y", series=rows)] * 2
    draw(Plot(name="a", title="", caption="", alternative="", panels=panels))
    assert len(os.listdir("/proc/self/task")) == 1, "no other thread may live at a fork"


def _serve() -> None:
    gc.disable()  # imports make no garbage
    import matplotlib.figure  # noqa: F401

    import activedpo_cli

    for module in pkgutil.walk_packages(activedpo_cli.__path__, "activedpo_cli."):
        if module.name != "activedpo_cli.__main__":
            importlib.import_module(module.name)
    quicken_accelerate()
    _warm_up()
    gc.freeze()  # else the first collection in a child copies all of it
    gc.enable()

    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _run(**request)
        print(pid, flush=True)


if __name__ == "__main__":
    _serve()
