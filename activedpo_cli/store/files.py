"""Changing files so that each is either whole or absent, also after a power cut. All writing goes through here.

Every single change is one call of `operations`, so that tests can let any of them fail. Two writers of one file take
turns; what may be at work on one folder is for locks to say.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

from activedpo_cli.base.digests import sha256_of as sha256_of
from activedpo_cli.store.operations import OF_THE_DISK, failing_as, free_bytes, library_writes, operations

__all__ = ["free_bytes", "library_writes"]

TEMPORARY_SUFFIX = ".tmp"
BYTES_AT_ONCE = 2**20


def write_bytes(path: Path, data: bytes) -> None:
    """Replace or create `path` in one step: temporary file, fsync, rename, fsync of the folder.

    Raises StorageError, as all that follow, where the disk does not take it; what was there before is still there.
    """
    temporary = _temporary(path)
    with failing_as(path, len(data)):
        descriptor = _open_alone(temporary)
        try:
            with _removed_on_failure(temporary, descriptor):
                _write_all(temporary, descriptor, data)
                operations.sync(temporary, descriptor)
                operations.rename(temporary, path)
        finally:
            os.close(descriptor)
        sync_folder(path.parent)


def write_private(path: Path, data: bytes) -> None:
    """As `write_bytes`, readable by nobody but this user. Other threads must not write meanwhile: the umask is changed."""
    before = os.umask(0o077)
    try:
        write_bytes(path, data)
    finally:
        os.umask(before)


def write_with(path: Path, save: Callable[[Path], None]) -> None:
    """Let a library write one file, then make it durable, readable under the umask, and visible in one step."""
    temporary = _temporary(path)
    with failing_as(path), _removed_on_failure(temporary):
        with library_writes(path):
            operations.fill(temporary, save)
        _make_durable(temporary)
        operations.rename(temporary, path)
        sync_folder(path.parent)


def write_folder_with(path: Path, save: Callable[[Path], None]) -> None:
    """Let a library fill a folder, which appears under its name only when it is whole; an old one is replaced."""
    temporary = _temporary(path)
    with failing_as(path):
        _remove_tree(temporary)
        operations.make_folder(temporary)
    with failing_as(path, only=OF_THE_DISK), _removed_on_failure(temporary):
        with library_writes(path):
            operations.fill(temporary, save)
        _make_folder_durable(temporary)
        _put_in_place(temporary, path)


def write_new(path: Path, data: bytes) -> None:
    """Write a file into a folder that nobody sees yet; the folder is made where it is missing."""
    make_folder(path.parent)
    with failing_as(path, len(data)):
        descriptor = operations.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            _write_all(path, descriptor, data)
        finally:
            os.close(descriptor)


def append_line(path: Path, line: bytes) -> None:
    """Add one line and return only when it is on the disk. The line is written by a single call, if the system does.

    Where the disk does not take it, it is cut off again. Only one process at a time may add to a file.
    """
    with failing_as(path, len(line)):
        descriptor = operations.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        before = os.fstat(descriptor).st_size
        try:
            _write_all(path, descriptor, line)
            operations.sync(path, descriptor)
            sync_folder(path.parent)
        except OSError:
            with suppress(
                OSError
            ):  # else a line that can be read, and that the disk may not have, passes for a safe one
                os.ftruncate(descriptor, before)
            raise
        finally:
            os.close(descriptor)


def open_log(path: Path) -> BinaryIO:
    """A file at whose end another process may write what it has to say; it holds nothing that is read back."""
    make_folder(path.parent)
    with failing_as(path):
        return os.fdopen(operations.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably; nothing happens where it is there."""
    missing = takewhile(lambda folder: not folder.exists(), (path, *path.parents))
    for folder in reversed(list(missing)):
        with failing_as(folder):
            with suppress(FileExistsError):  # another process was faster
                operations.make_folder(folder)
            sync_folder(folder.parent)


def copy_folder(source: Path, destination: Path) -> None:
    """Copy the files of a folder and those below it; hidden ones are left out."""
    for path in sorted(source.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            copy_folder(path, destination / path.name)
        else:
            _copy(path, destination / path.name)


def take_in(source: Path, destination: Path) -> None:
    """Move a folder that a library has filled within one file system; it is whole and durable when it appears."""
    with failing_as(destination):
        _make_folder_durable(source)
        _put_in_place(source, destination)


def move(source: Path, destination: Path) -> None:
    """Rename within one file system, making the parents of both durable."""
    make_folder(destination.parent)
    with failing_as(source, doing=f"moved to `{destination}`"):
        operations.rename(source, destination)
        sync_folder(destination.parent)
        sync_folder(source.parent)


def remove(path: Path) -> None:
    """Take away a file or a folder, which is gone as a whole or not at all; nothing happens where there is none."""
    with failing_as(path, doing="removed"):
        if path.is_dir() and not path.is_symlink():
            condemned = _temporary(path)
            _remove_tree(condemned)  # a process that was killed here left it
            operations.rename(path, condemned)
            sync_folder(path.parent)
            _remove_tree(condemned)
        else:
            with suppress(FileNotFoundError):
                operations.remove(path)


def remove_empty_folder(path: Path) -> None:
    """Take away a folder that holds nothing."""
    with failing_as(path, doing="removed"):
        operations.remove_folder(path)


def sweep_temporaries(folder: Path) -> None:
    """Remove what an interrupted writer left behind; only the holder of the lock on the folder may call this."""
    for path in sorted(folder.rglob(f".*{TEMPORARY_SUFFIX}")):
        with failing_as(path, doing="removed"):
            _remove_tree(path)


def is_temporary(path: Path) -> bool:
    """Whether a file is one that a writer has not finished, or did not when it was interrupted."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY_SUFFIX)


def leftovers(path: Path) -> list[Path]:
    """What an interrupted writer of a folder left beside it."""
    return [candidate for candidate in (_temporary(path), _old(path)) if candidate.exists()]


def remove_leftovers(path: Path) -> None:
    """Remove what `leftovers` lists; only the holder of the lock on the folder may call this."""
    for left in leftovers(path):
        with failing_as(left, doing="removed"):
            _remove_tree(left)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        operations.sync(path, descriptor)
    finally:
        os.close(descriptor)


def file_mode() -> int:
    """The mode that the umask leaves a new file."""
    current = os.umask(0o022)
    os.umask(current)
    return 0o666 & ~current


def _temporary(path: Path) -> Path:
    make_folder(path.parent)
    return path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old{TEMPORARY_SUFFIX}")


def _open_alone(temporary: Path) -> int:
    """Open the temporary file, empty, once nobody else writes it; the kernel frees it when its writer dies."""
    while True:
        descriptor = operations.open(temporary, os.O_WRONLY | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(descriptor), os.stat(temporary)):
                os.ftruncate(descriptor, 0)
                return descriptor
        except FileNotFoundError:  # the writer before has renamed it
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _write_all(path: Path, descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[operations.write(path, descriptor, left) :]


def _copy(source: Path, destination: Path) -> None:
    make_folder(destination.parent)
    with open(source, "rb") as stream:
        descriptor = operations.open(destination, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            while part := stream.read(BYTES_AT_ONCE):
                with failing_as(destination, len(part)):
                    _write_all(destination, descriptor, part)
        finally:
            os.close(descriptor)


def _make_durable(path: Path) -> None:
    os.chmod(path, file_mode())  # safetensors writes mode 0600, whatever the umask
    descriptor = os.open(path, os.O_RDONLY)
    try:
        operations.sync(path, descriptor)
    finally:
        os.close(descriptor)


def _make_folder_durable(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            _make_folder_durable(path)
        else:
            _make_durable(path)
    sync_folder(folder)


def _put_in_place(temporary: Path, path: Path) -> None:
    if not path.exists():
        operations.rename(temporary, path)
        sync_folder(path.parent)
        return
    old = _old(path)
    _remove_tree(old)
    operations.rename(path, old)
    try:
        operations.rename(temporary, path)
    except BaseException:
        if not path.exists():
            operations.rename(old, path)
        raise
    sync_folder(path.parent)
    _remove_tree(old)


def _remove_tree(path: Path) -> None:
    """Remove a file, or a folder with all below it; links are not followed, and nothing need be there."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            for below in sorted(path.iterdir()):
                _remove_tree(below)
            operations.remove_folder(path)
        else:
            operations.remove(path)


@contextmanager
def _removed_on_failure(temporary: Path, descriptor: int | None = None) -> Iterator[None]:
    """Give the space back at once, unless another writer's file lies there by then; if that fails, the next one sweeps."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if descriptor is None or os.path.samestat(os.fstat(descriptor), os.stat(temporary)):
                _remove_tree(temporary)
        raise
