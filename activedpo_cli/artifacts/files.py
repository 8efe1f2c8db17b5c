"""Writing files so that each is either whole or absent, also after a power cut. All writing in a run goes through here."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
BYTES_HASHED_AT_ONCE = 2**20


def write_bytes(path: Path, data: bytes) -> None:
    """Replace or create `path` in one step: temporary file, fsync, rename, fsync of the folder."""
    temporary = _temporary(path)
    with open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def write_with(path: Path, save: Callable[[Path], None]) -> None:
    """Let a library write one file, then make it durable, readable under the umask, and visible in one step."""
    temporary = _temporary(path)
    save(temporary)
    _make_durable(temporary)
    os.replace(temporary, path)
    sync_folder(path.parent)


def write_folder_with(path: Path, save: Callable[[Path], None]) -> None:
    """Let a library fill a folder, which appears under its name only when it is whole; an old one is replaced."""
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        save(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for file in sorted(p for p in temporary.rglob("*") if p.is_file()):
        _make_durable(file)
    if path.exists():
        shutil.rmtree(path)
    os.replace(temporary, path)
    sync_folder(path.parent)


def append_line(path: Path, line: bytes) -> None:
    """Add one line and return only when it is on the disk. The line is written by a single call."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        view = memoryview(line)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(source: Path, destination: Path) -> None:
    """Rename within one file system, making the parents of both durable."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, destination)
    sync_folder(destination.parent)
    sync_folder(source.parent)


def sweep_temporaries(folder: Path) -> None:
    """Remove what an interrupted writer left behind; only the holder of the stage's lock may call this."""
    for path in list(folder.glob(f".*{TEMPORARY_SUFFIX}*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def sha256_of(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """The hexadecimal SHA-256 of a file's bytes; `on_bytes` is told how many more were read, for files that are large."""
    with open(path, "rb") as stream:
        if on_bytes is None:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha256()
        while part := stream.read(BYTES_HASHED_AT_ONCE):
            digest.update(part)
            on_bytes(len(part))
        return digest.hexdigest()


def free_bytes(path: Path) -> int:
    """Space left for this user on the file system of an existing folder."""
    return shutil.disk_usage(path).free


def _temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")


def _make_durable(path: Path) -> None:
    os.chmod(path, 0o666 & ~_umask())  # safetensors writes mode 0600, whatever the umask
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current
