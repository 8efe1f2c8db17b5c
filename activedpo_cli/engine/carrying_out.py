"""`carry_out`: does the work of a stage or part in its folder, from `started.json` to `manifest.json`."""

import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import BusyError
from activedpo_cli.base.launchers import Shard
from activedpo_cli.base.progress import Progress
from activedpo_cli.engine.company import joined, waits
from activedpo_cli.engine.step import Execution, environment
from activedpo_cli.engine.units import Work
from activedpo_cli.store.lock import HeldLock
from activedpo_cli.store.manifest import Manifest, Started
from activedpo_cli.store.stage_folder import StageFolder


@dataclass(frozen=True)
class Task:
    """Work in a folder.

    Attributes:
        folder: Where its files are to be.
        started: What identifies it.
        claims: Folder of the locks by which its units are claimed.
        logs: Files that do not identify the result, because they hold times.
        lent: The lock of the folder, where several processes may do the work together; else it is kept.

    """

    folder: StageFolder
    started: Started
    claims: Path
    logs: tuple[str, ...] = ()
    lent: HeldLock | None = None


def carry_out(task: Task, open_work: Callable[[], Work], execution: Execution, progress: Progress) -> Manifest | None:
    """Begin or go on, do what is missing, and finish; the caller holds the lock of the folder.

    One of several processes lends that lock while units are done, and waits for those that others do: whoever has it when
    all are there finishes. Returns None where another process finished it while the lock was lent. Raises BusyError where
    a process alone finds units that others have claimed.
    """
    folder, shard = task.folder, execution.shard if task.lent else None
    is_resumed = folder.started is not None
    versions = environment()
    with joined(task.claims, shard, versions) as is_first:
        if is_first:  # what others are about to write would be swept away
            folder.begin(task.started)
        began, clock = datetime.now(UTC), time.monotonic()
        summary = _summary(task, open_work, shard, progress)
        if summary is None:
            return None
        facts = {
            "device": execution.device,
            "host": socket.gethostname(),
            "started": began.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 3),
            "resumed": is_resumed,
        }
        return folder.finish(task.started, logs=task.logs, summary=summary, execution=facts, environment=versions)


def _summary(
    task: Task, open_work: Callable[[], Work], shard: Shard | None, progress: Progress
) -> dict[str, Any] | None:
    """Facts for people about the work, all of which is there; None where another process has finished it."""
    try:
        with task.lent.lent(None) if shard and task.lent else nullcontext():
            work = open_work()
            _do_all(task, work, shard, progress)
        if task.folder.started is None:
            return None
        summary = work.finish()
        is_ours = task.folder.started is not None  # the work of people lends the lock by itself
        return summary if is_ours else None
    finally:
        progress.stop()


def _do_all(task: Task, work: Work, shard: Shard | None, progress: Progress) -> None:
    """Do what is missing until all is there, by whomever; a unit whose process dies is done by another."""
    pauses = waits()
    while not work.do_what_is_missing(task.claims, progress, shard):
        if shard is None:
            raise BusyError(
                f"other processes work on what is missing in `{task.folder.path}`; the last of them finishes it"
            )
        if task.folder.started is None:
            return
        next(pauses)
