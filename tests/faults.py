"""Lets a command fail at its n-th change to a file: as if it were killed, the power went, or the disk were full or broken.

What is hooked are the few `operations` of `activedpo_cli.store`, through which all writing goes. What the system was
told to keep, by fsync of files and folders, is followed as well, so that a power cut takes all the rest.
"""

import errno
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("crash-before", "crash-after", "torn", "power", "enospc", "eio", "short")
KILLED = 137
LOST = b"\0"


@dataclass
class Fault:
    """What happens at the `at`-th change; `note` is a file that says which it was, and is not made if there are fewer.

    `crash-before`, `crash-after`: the process is gone. `torn`: half of a write, or of what a library wrote, then gone.
    `power`: gone, with everything that was not synced. `enospc`, `eio`: this change fails; with `enospc` all writes after
    it, too. `short`: the system takes half of a write, which is no error. `limit`: no file may grow beyond `at` bytes, also
    where a library writes.
    """

    kind: str
    at: int
    note: str
    count: int = 0
    unsynced: dict[str, int] = field(default_factory=dict)
    names: list[tuple[str, str, bytes | None]] = field(default_factory=list)

    def install(self) -> None:
        """Hook the operations of this process."""
        from activedpo_cli.store.operations import operations

        if self.kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.at, self.at))
            return
        plain = {
            name: getattr(operations, name)
            for name in ("make_folder", "open", "write", "sync", "rename", "remove", "remove_folder", "fill")
        }
        for name, function in plain.items():
            setattr(operations, name, self._hooked(name, function))

    def _hooked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, *more: Any) -> Any:
            self.count += 1
            if self.count < self.at or (self.count > self.at and self.kind != "enospc"):
                return self._done(name, function, path, *more)
            if self.kind == "enospc" and name not in ("write", "make_folder", "open", "fill"):
                return function(path, *more)  # needs no space
            if not os.path.exists(self.note):
                Path(self.note).write_text(f"{self.count}: {name} {path}")
            return self._fail(name, function, path, *more)

        return call

    def _fail(self, name: str, function: Callable[..., Any], path: Path, *more: Any) -> Any:
        if self.kind == "crash-before":
            os._exit(KILLED)
        if self.kind in ("enospc", "eio"):
            if name == "fill":
                function(path, *more)
                _cut(path)
            raise OSError(errno.ENOSPC if self.kind == "enospc" else errno.EIO, "injected")
        if self.kind in ("torn", "short") and name == "write":
            descriptor, data = more
            more = (descriptor, data[: (len(data) + 1) // 2])
        try:
            result = self._done(name, function, path, *more)
        except OSError:  # of a file that need not be there, say
            if self.kind == "short":
                raise
            os._exit(KILLED)
        if self.kind == "short":
            return result
        if self.kind == "torn" and name == "fill":
            _cut(path)
        if self.kind == "power":
            self._lose()
        os._exit(KILLED)

    def _done(self, name: str, function: Callable[..., Any], path: Path, *more: Any) -> Any:
        """Do it, and keep account of what a power cut would take."""
        at = os.path.abspath(path)
        if name == "sync":
            self._keep(at)
            return function(path, *more)
        if name == "rename":
            destination = os.path.abspath(more[0])
            self.names.append(
                (destination, at, Path(destination).read_bytes() if os.path.isfile(destination) else None)
            )
            self.unsynced = {_moved(held, at, destination): size for held, size in self.unsynced.items()}
        elif name in ("make_folder", "open", "fill") and not os.path.lexists(at):
            self.names.append((at, "", None))
        elif name == "write":
            self.unsynced.setdefault(at, os.fstat(more[0]).st_size)
        result = function(path, *more)
        if name == "fill":
            self.unsynced |= {os.path.abspath(p): 0 for p in (path, *path.rglob("*")) if p.is_file()}
            self.names += [(os.path.abspath(p), "", None) for p in path.rglob("*")]
        return result

    def _keep(self, at: str) -> None:
        """A file's content, or the names in a folder, are on the disk from now on."""
        self.unsynced.pop(at, None)
        left: list[tuple[str, str, bytes | None]] = []
        for name, source, before in self.names:
            if os.path.dirname(name) != at:
                left.append((name, source, before))
            elif source:  # what was made under the old name and never synced is missing under the new one
                left = [(_moved(older, source, name), *more) for older, *more in left if older != source]
        self.names = left

    def _lose(self) -> None:
        for name, size in self.unsynced.items():
            if os.path.exists(name):
                os.truncate(name, min(size, os.path.getsize(name)))
        for name, source, before in reversed(self.names):
            if not os.path.lexists(name):
                continue
            if source:
                os.replace(name, source)
            elif os.path.isdir(name):
                shutil.rmtree(name)
            else:
                os.unlink(name)
            if before is not None:
                Path(name).write_bytes(before)


def note_answers(path: str) -> None:
    """Write down the id of every pair whose label this process acknowledges, once it has."""
    from activedpo_cli.store.label_log import LabelLog

    plain = LabelLog.append
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def append(self: LabelLog, *labels: Any) -> None:
        plain(self, *labels)
        os.write(descriptor, b"".join(label.pair_id.encode() + b"\n" for label in labels))

    LabelLog.append = append  # type: ignore[method-assign]


def _cut(path: Path) -> None:
    """Leave half of the largest file that a library wrote."""
    files = [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]
    if files:
        largest = max(files, key=lambda found: found.stat().st_size)
        os.truncate(largest, largest.stat().st_size // 2)


def _moved(name: str, source: str, destination: str) -> str:
    is_below = name == source or name.startswith(source + os.sep)
    return destination + name[len(source) :] if is_below else name
