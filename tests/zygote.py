"""A process that has imported everything and computed nothing, and forks to run commands: real processes, quickly."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


class Zygote:
    """Starts commands in processes of their own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )

    def start(
        self,
        words: tuple[Any, ...],
        folder: Path,
        terminal: str | None = None,
        stdout: Path | None = None,
        stderr: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> int:
        """Run a command in a folder, silently or at a terminal (of that name); returns the process id at once."""
        assert self.process.stdin is not None
        request = {
            "words": [str(word) for word in words],
            "folder": str(folder),
            "terminal": terminal,
            "stdout": str(stdout) if stdout else None,
            "stderr": str(stderr) if stderr else None,
            "environment": environment or {},
        }
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        pid = int(self._line())
        self.last_pid = pid
        assert pid > 1, "an exit status that nobody read: a signal to it would go to whole groups of processes"
        return pid

    def wait(self) -> int:
        """The exit status of the command, negative for the signal that ended it."""
        return int(self._line())

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

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def _run(
    words: list[str],
    folder: str,
    terminal: str | None,
    stdout: str | None,
    stderr: str | None,
    environment: dict[str, str],
) -> None:
    os.chdir(folder)
    if terminal:
        for name in ("COLUMNS", "LINES"):  # the size is the terminal's, not that of whoever runs the tests
            os.environ.pop(name, None)
    os.environ.update(environment)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # tests started in the background inherit that it is ignored
    os.setsid()  # the terminal opened next is then the one whose Ctrl-C this process hears
    streams = os.open(terminal or os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(streams, descriptor)
    if stdout:
        os.dup2(os.open(stdout, os.O_CREAT | os.O_WRONLY), 1)
    if stderr:
        os.dup2(os.open(stderr, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
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


def _serve() -> None:
    import activedpo_cli.models.dpo
    import activedpo_cli.models.sft
    import activedpo_cli.stages.evaluate
    import activedpo_cli.stages.train  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(**request)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
