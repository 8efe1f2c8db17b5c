"""The single calls that change a file system, and what is said when one of them fails. Only `files` uses them."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from activedpo_cli.base.errors import ActiveDPOError, StorageError

OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
"""Error codes that are the disk's fault even in a library's error; for all others the library's own message stands."""
TORCH_WRITERS = ("PytorchStreamWriter", "inline_container")
LITTLE = 2**24
"""Fewer free bytes than this are taken for the reason when a library fails to write and does not say why."""
_CODE_IN_TEXT = re.compile(r"\(os error (?P<shown>\d+)\)|Os \{ code: (?P<listed>\d+)")
KEPT = "what was finished is kept"


class Operations:
    """The calls that change a file system, one at a time."""

    def make_folder(self, path: Path) -> None:
        """Make a folder whose parent is there."""
        os.mkdir(path)

    def open(self, path: Path, flags: int) -> int:
        """Open a file to change it, and make it where `flags` say so."""
        return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)  # a pipe there is refused, not waited for

    def write(self, path: Path, descriptor: int, data: memoryview) -> int:
        """Write as much as the system takes, and say how many bytes that was."""
        return os.write(descriptor, data)

    def sync(self, path: Path, descriptor: int) -> None:
        """Make the content of a file, or the names in a folder, durable."""
        os.fsync(descriptor)

    def rename(self, source: Path, destination: Path) -> None:
        """Rename, replacing a file that is there, but no device or pipe."""
        _refuse_special(destination)
        os.replace(source, destination)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        os.rmdir(path)

    def fill(self, path: Path, save: Callable[[Path], None]) -> None:
        """Let a library write a file or fill a folder that nobody sees yet."""
        save(path)


operations = Operations()


@contextmanager
def library_writes(path: Path) -> Iterator[None]:
    """Recognise a full or broken disk in what a library raises, which need not be an OSError; raises StorageError then."""
    try:
        yield
    except ActiveDPOError:
        raise
    except Exception as error:
        found = _of_the_disk(path, error)
        if found is None:
            raise
        raise _explained(path, found, None, "written") from error


def _of_the_disk(path: Path, error: Exception) -> OSError | None:
    if isinstance(error, OSError):
        return error if error.errno in OF_THE_DISK else None
    text = str(error)
    code = _CODE_IN_TEXT.search(text)
    number = int(code["shown"] or code["listed"]) if code is not None else 0
    if number in OF_THE_DISK:
        return OSError(number, os.strerror(number))
    if any(name in text for name in TORCH_WRITERS):  # these do not say why
        likely = errno.ENOSPC if free_bytes(path if path.exists() else path.parent) < LITTLE else errno.EIO
        return OSError(likely, os.strerror(likely))
    return None


@contextmanager
def failing_as(
    path: Path, needed: int | None = None, *, doing: str = "written", only: set[int] | None = None
) -> Iterator[None]:
    """Say which file an error of the system is about, how much space was asked for, and the way out.

    Raises StorageError for every OSError, or for those with a code in `only`.
    """
    try:
        yield
    except OSError as error:
        if only is not None and error.errno not in only:
            raise
        raise _explained(path, error, needed, doing) from error


def _refuse_special(path: Path) -> None:
    """Refuse a path that is a device or a pipe: a rename onto it would take it away, and many programs need `/dev/null`."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise StorageError(f"`{path}` is no regular file, and can't be replaced by one", hint="name another file")


def free_bytes(path: Path) -> int:
    """Space left for this user on the file system of an existing folder."""
    return shutil.disk_usage(path).free


def _explained(path: Path, error: OSError, needed: int | None, doing: str) -> StorageError:
    details, hint = [], f"mend that, then give the same command again; {KEPT}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        details = [f"needed: {needed:,} bytes"] if needed else []
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        details.append(f"free: {free_bytes(folder):,} bytes on the file system of `{folder}`")
        hint = f"make space, then give the same command again; {KEPT}"
    elif error.errno == errno.EFBIG:
        hint = f"raise the limit with `ulimit -f unlimited`, then give the same command again; {KEPT}"
    elif error.errno == errno.EIO:
        hint = f"the disk itself may be failing, see the system's log; then give the same command again; {KEPT}"
    return StorageError(f"`{path}` can't be {doing}: {error.strerror or error}", details=details, hint=hint)
