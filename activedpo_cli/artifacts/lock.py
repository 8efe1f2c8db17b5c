"""One process at a time on one stage; the kernel frees the lock when its holder dies."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from activedpo_cli.artifacts import files
from activedpo_cli.errors import BusyError, StorageError


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path`; raises BusyError naming the holder when another process has it."""
    from filelock import FileLock, Timeout

    files.make_folder(path.parent)
    lock = FileLock(path, timeout=0, mode=0o664)
    holder = path.with_suffix(".holder")
    try:
        lock.acquire()
    except Timeout as error:
        raise BusyError(f"another process is working on `{what}` ({_describe(holder)})") from error
    try:
        # Only told to people who wait, so it needs no fsync and may be torn.
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%H:%M:%S")}
        files.write_new(holder, json.dumps(facts).encode())
        yield
    finally:
        with suppress(StorageError):
            files.remove(holder)
        lock.release()


@contextmanager
def waiting(path: Path, seconds: float = 30.0) -> Iterator[None]:
    """Hold a lock that others hold only for moments; raises BusyError when it does not become free."""
    from filelock import FileLock, Timeout

    files.make_folder(path.parent)
    try:
        with FileLock(path, timeout=seconds, mode=0o664):
            yield
    except Timeout as error:
        raise BusyError(f"`{path}` is held by another process") from error


def _describe(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text())
        return f"process {facts['pid']} on {facts['host']} since {facts['since']}"
    except (OSError, ValueError, KeyError):
        return "its holder is unknown"
