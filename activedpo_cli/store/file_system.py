"""Whether a file system does what runs rely on: whole renames, locks that die with their process, sync, the umask.

This is tried in a folder of its own, which is removed again.
"""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from activedpo_cli.base.errors import ActiveDPOError, BusyError
from activedpo_cli.store.files import sync_folder, write_bytes
from activedpo_cli.store.lock import exclusive

SECONDS_FOR_A_PROCESS = 30
_HOLDER = (
    "import sys; from pathlib import Path; from activedpo_cli.store.lock import exclusive\n"
    "with exclusive(Path(sys.argv[1]), 'a trial'): print('held', flush=True); sys.stdin.read()"
)


@dataclass(frozen=True)
class Trial:
    """One property that was tried; `failure` says what went wrong, None where nothing did."""

    name: str
    means: str
    failure: str | None


def try_file_system(folder: Path) -> list[Trial]:
    """Try, in a folder that exists, everything that runs rely on; raises OSError where nothing can be written at all."""
    trials: dict[str, tuple[str, Callable[[Path], None]]] = {
        "rename": ("files and folders appear whole", _try_renames),
        "lock": ("a second process is kept out, and let in when the first is killed", _try_locks),
        "sync": ("files and folders reach the disk", _try_sync),
        "umask": ("files are readable for whom the umask says", _try_umask),
    }
    with _place(folder) as place:
        return [Trial(name, means, _failure(attempt, place)) for name, (means, attempt) in trials.items()]


@contextmanager
def _place(folder: Path) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix=".activedpo-doctor-", suffix=".tmp", dir=folder))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _failure(attempt: Callable[[Path], None], place: Path) -> str | None:
    try:
        attempt(place)
    except ActiveDPOError as error:
        return error.message
    except (OSError, NotImplementedError, _NotSoError, subprocess.SubprocessError) as error:
        return str(error)
    return None


class _NotSoError(Exception):
    """The file system did something else than was asked of it."""


def _expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise _NotSoError(otherwise)


def _try_renames(place: Path) -> None:
    """Put a file in the place of another that a reader holds open, and a folder under a new name."""
    write_bytes(place / "file", b"old")
    with open(place / "file", "rb") as reader:
        write_bytes(place / "file", b"new")
        _expect(reader.read() == b"old", "a file that is being read changes when another takes its place")
    _expect((place / "file").read_bytes() == b"new", "a renamed file does not have the new content")
    (place / "made").mkdir()
    (place / "made" / "part").write_bytes(b"x")
    os.replace(place / "made", place / "folder")
    _expect(
        (place / "folder" / "part").is_file() and not (place / "made").exists(), "a folder is not renamed as a whole"
    )


def _try_locks(place: Path) -> None:
    """Let another process hold a lock, find it held, kill that process, and find it free."""
    path = place / "trial.lock"
    command = [sys.executable, "-c", _HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stderr is not None
            if holder.stdout.readline() != b"held\n":
                last = holder.stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise _NotSoError(f"no lock can be taken: {last}")
            _expect(_is_held(path), "two processes hold one lock at the same time")
        finally:
            holder.kill()
            holder.wait(SECONDS_FOR_A_PROCESS)
    _expect(not _is_held(path), "a lock outlives the process that held it")


def _is_held(path: Path) -> bool:
    try:
        with exclusive(path, "a trial"):
            return False
    except BusyError:
        return True


def _try_sync(place: Path) -> None:
    write_bytes(place / "synced", b"x")
    sync_folder(place)


def _try_umask(place: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(place / "mode", b"x")
    finally:
        os.umask(before)
    mode = stat.S_IMODE((place / "mode").stat().st_mode)
    _expect(mode == 0o640, f"a file made under umask 027 has mode {mode:03o}, not 640")
