"""`carry_out`: does the work of a stage or part in its folder, from `started.json` to `manifest.json`."""

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from activedpo_cli.base.errors import BusyError
from activedpo_cli.base.progress import Progress
from activedpo_cli.engine.step import Execution, environment
from activedpo_cli.engine.units import Work
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

    """

    folder: StageFolder
    started: Started
    claims: Path
    logs: tuple[str, ...] = ()


def carry_out(task: Task, open_work: Callable[[], Work], execution: Execution, progress: Progress) -> Manifest | None:
    """Begin or go on, do what is missing, and finish; the caller holds the lock of the folder.

    Returns None where another process finished it while the work had lent that lock. Raises BusyError where others still
    work on units that they have claimed: whoever comes last finishes.
    """
    folder = task.folder
    is_resumed = folder.started is not None
    folder.begin(task.started)
    began, clock = datetime.now(UTC), time.monotonic()
    try:
        work = open_work()
        if not work.do_what_is_missing(task.claims, progress):
            raise BusyError(f"other processes work on what is missing in `{folder.path}`; the last of them finishes it")
        summary = work.finish()
    finally:
        progress.stop()
    if folder.started is None:
        return None
    facts = {
        "device": execution.device,
        "host": socket.gethostname(),
        "started": began.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 3),
        "resumed": is_resumed,
    }
    return folder.finish(task.started, logs=task.logs, summary=summary, execution=facts, environment=environment())
