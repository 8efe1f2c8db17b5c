"""Do the runs of an experiment in several processes, by the same command with `--shard`; other machines may join in.

Ctrl-C at the terminal reaches this process alone, which has the others finish. None outlives it, however it ends.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from activedpo_cli.base.interruption import PARENT_PIPE, ends_with_this_process, has_ended
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.threads import WORKERS
from activedpo_cli.experiments.folder import ExperimentFolder, Job
from activedpo_cli.store import files

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 20.0
LAST_LINES = 3


def run_workers(
    folder: ExperimentFolder, jobs: Sequence[Job], command: Sequence[str], count: int, progress: Progress
) -> list[int]:
    """Start `count` processes of `command` and wait for them, showing how many runs are done; returns their exit codes.

    Each says what it has to say into a log of its own. All end with this process.
    """
    done = sum(folder.is_done(job) for job in jobs)
    progress.start("runs", len(jobs), "runs", done)
    with ExitStack() as stack:
        workers = [_start(folder, command, number, count, stack) for number in range(1, count + 1)]
        try:
            while any(worker.poll() is None for worker in workers):
                time.sleep(POLL_SECONDS)
                now = sum(folder.is_done(job) for job in jobs)
                progress.advance(now - done)
                done = now
        finally:
            _end(workers)
            progress.stop()
        return [worker.wait() for worker in workers]


def last_words(folder: ExperimentFolder, worker: int) -> list[str]:
    """The last lines of a worker's log."""
    path = folder.log_path(worker)
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return [line for line in text.splitlines() if line.strip()][-LAST_LINES:]


def _start(
    folder: ExperimentFolder, command: Sequence[str], number: int, count: int, stack: ExitStack
) -> "subprocess.Popen[bytes]":
    path = folder.log_path(number)
    command = [*command, "--shard", f"{number - 1}/{count}"]
    log = stack.enter_context(files.open_log(path))
    environment = {**os.environ, WORKERS: str(count), PARENT_PIPE: "1"}
    # The pipe is never written to: it ends with this process, and so do the workers.
    worker = subprocess.Popen(
        [sys.executable, *command],
        stdout=log,
        stderr=log,
        stdin=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    ends_with_this_process(worker.pid)
    return worker


def _end(workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Let the workers finish as after a signal, then make them."""
    alive = [worker for worker in workers if worker.poll() is None]
    for worker in alive:
        worker.terminate()
    for worker in alive:
        try:
            worker.wait(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
    for worker in workers:
        has_ended(worker.pid)
