"""One process at a time on one stage; the kernel frees the lock when its holder dies."""

import errno
import inspect
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.errors import BusyError, InvalidDataError, StorageError
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.store import files

if TYPE_CHECKING:
    from filelock import FileLock

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Error codes by which a file system says that it has no locks."""
PATIENCE = 30.0
"""Seconds after which a lock that others hold only for moments is taken to be stuck."""
LOOKS, SECONDS_BETWEEN_LOOKS = 20, 0.02


class HeldLock:
    """A lock that this process holds, with a file beside it that says who that is."""

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._what = what
        self._holder = path.with_suffix(".holder")
        files.make_folder(path.parent)
        self._lock = _kernel_lock(path, 0)

    @contextmanager
    def lent(self, seconds: float | None = PATIENCE) -> Iterator[None]:
        """Others may take the lock meanwhile; it ends with holding it again.

        Raises BusyError where another process keeps the lock for longer than `seconds`; with None it is waited for as long
        as it takes. Where the work failed its error is raised, and the lock is held only if it could be had.
        """
        self._give_back()
        try:
            yield
        except BaseException:
            with suppress(BusyError):
                self._take(seconds or 0.0)
                with suppress(StorageError):  # a full disk may be why the work failed, and that error says so
                    self._sign()
            raise
        self._take(seconds)
        self._sign()

    @property
    def is_held(self) -> bool:
        """Whether this process holds it now."""
        return bool(self._lock.is_locked)

    def for_a_moment(self) -> AbstractContextManager[None]:
        """Hold a lock again that is lent, as others do who need it for moments; raises BusyError as `waiting` does."""
        return waiting(self._path, PATIENCE)

    def _take(self, seconds: float | None) -> None:
        from filelock import Timeout

        try:
            with _locks_needed(self._path):
                self._lock.acquire(timeout=-1 if seconds is None else seconds)
        except Timeout as error:
            raise BusyError(f"another process is working on `{self._what}` ({_describe(self._holder)})") from error

    def _sign(self) -> None:
        # Only told to people who wait, so it needs no fsync and may be torn.
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%H:%M:%S")}
        files.write_new(self._holder, json.dumps(facts).encode())

    def _give_back(self) -> None:
        if self._lock.is_locked:
            with suppress(StorageError):
                files.remove(self._holder)
            self._lock.release()


@contextmanager
def exclusive(path: Path, what: str, seconds: float | None = 0.0) -> Iterator[HeldLock]:
    """Hold the lock file at `path`; raises BusyError naming the holder when another process keeps it for `seconds`.

    With None it is waited for as long as it takes.
    """
    held = HeldLock(path, what)
    try:
        held._take(seconds)
        held._sign()
        yield held
    finally:
        held._give_back()


@contextmanager
def waiting(path: Path, seconds: float = PATIENCE) -> Iterator[None]:
    """Hold a lock that others hold only for moments; raises BusyError when it does not become free."""
    from filelock import Timeout

    files.make_folder(path.parent)
    lock = _kernel_lock(path, seconds)
    try:
        with _locks_needed(path):
            lock.acquire()
    except Timeout as error:
        raise BusyError(f"`{path}` is held by another process") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Try to hold a lock for as long as one unit of work takes; yields whether it is ours, and never waits."""
    from filelock import Timeout

    files.make_folder(path.parent)
    lock = _kernel_lock(path, 0)
    try:
        with _locks_needed(path):
            lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _kernel_lock(path: Path, seconds: float) -> "FileLock":
    """A lock that dies with its process; where the system has none, the mere presence of a file must not stand for one."""
    from filelock import FileLock

    knows = inspect.signature(FileLock.__init__).parameters  # older versions can't be asked
    kernel_only: dict[str, Any] = {"fallback_to_soft": False} if "fallback_to_soft" in knows else {}
    return FileLock(path, timeout=seconds, mode=files.file_mode(), **kernel_only)


@contextmanager
def _locks_needed(path: Path) -> Iterator[None]:
    try:
        yield
    except NotImplementedError as error:
        raise _no_locks(path) from error
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        raise _no_locks(path) from error


def _no_locks(path: Path) -> StorageError:
    return StorageError(
        f"the file system at `{path.parent}` has no locks, so nothing would keep two commands apart",
        hint="put the run on another one with --run PATH; `activedpo doctor --folder FOLDER` says whether it is fit",
    )


def _describe(holder: Path) -> str:
    """Who holds a lock, in words.

    A new holder signs a moment after it got the lock, and until then the name of a dead process may stand there, so this
    looks several times.
    """
    for _ in range(LOOKS):
        try:
            facts = json.loads(read_limited(holder))
            if _is_alive(facts["pid"], facts["host"]):
                return f"process {facts['pid']} on {facts['host']} since {facts['since']}"
        except (OSError, ValueError, KeyError, TypeError, InvalidDataError):
            pass
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return "its holder is unknown"


def _is_alive(pid: int, host: str) -> bool:
    """Whether a process runs, as far as can be told from here."""
    if host != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
