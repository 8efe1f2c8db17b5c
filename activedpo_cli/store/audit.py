"""Checks that files are, byte for byte, what was written: by their manifest, or by the form of a record.

Only looks: nothing is changed, whatever is found.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from activedpo_cli.base.digests import sha256_of
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.store.files import TEMPORARY_SUFFIX
from activedpo_cli.store.manifest import MANIFEST_NAME, STARTED_NAME, Manifest, OutputFile, digest_of
from activedpo_cli.store.stage_folder import StageFolder


@dataclass(frozen=True)
class FileFault:
    """One file that is not what it should be.

    Attributes:
        name: Its path in the folder that was looked at.
        kind: `missing`, `truncated`, `longer`, `changed`, `unknown`, `unreadable`, `torn` or `damaged`.
        what: The same in words.

    """

    name: str
    kind: str
    what: str


def listed_faults(
    folder: StageFolder, record: Manifest, on_bytes: Callable[[int], None] | None = None
) -> list[FileFault]:
    """Every file of a finished stage that is not what its manifest lists; all of them are hashed."""
    listed = {**record.outputs, **record.logs}
    found = (file_fault(folder.path, name, output, on_bytes) for name, output in listed.items())
    return [fault for fault in found if fault is not None]


def file_fault(
    folder: Path, name: str, listed: OutputFile, on_bytes: Callable[[int], None] | None = None
) -> FileFault | None:
    """What is wrong with one file that should have this size and content, None where nothing is."""
    path = folder / name
    try:
        size = path.stat().st_size if path.is_file() else None
        if size == listed.bytes:
            is_same = sha256_of(path, on_bytes) == listed.sha256
            if is_same:
                return None
            return FileFault(name, "changed", f"its content is not what was written{_first_bad_line(path)}")
        if size is None:
            return FileFault(name, "missing", "it is gone")
        kind = "truncated" if size < listed.bytes else "longer"
        what = f"it has {size} bytes, {listed.bytes} were written{_first_bad_line(path)}"
        return FileFault(name, kind, what)
    except OSError as error:
        return FileFault(name, "unreadable", f"it can't be read: {error.strerror or error}")


def _first_bad_line(path: Path) -> str:
    """The first line of a file of rows that is no whole row, as the end of a sentence; empty where there is none."""
    if path.suffix != ".jsonl":
        return ""
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                is_row = isinstance(json.loads(line), dict)
            except (ValueError, RecursionError):
                is_row = False
            if not is_row or not line.endswith(b"\n"):
                return f"; line {number} is no whole row"
    return ""


def unknown_files(folder: StageFolder, record: Manifest) -> list[FileFault]:
    """Files in a finished stage's folder that its manifest does not list; readers would take some of them by their names."""
    known = {*record.outputs, *record.logs, MANIFEST_NAME, STARTED_NAME}
    paths = sorted(path for path in folder.path.rglob("*") if path.is_file())
    names = [path.relative_to(folder.path).as_posix() for path in paths]
    return [
        FileFault(name, "unknown", "the manifest does not list it")
        for name in names
        if name not in known and not any(part.startswith(".") for part in name.split("/"))
    ]


def record_fault(folder: Path, name: str) -> FileFault | None:
    """What is wrong with the form of a JSON record: it parses, and still is not as it was written, to the last newline."""
    data = read_limited(folder / name)
    if data.startswith(b"\xef\xbb\xbf"):
        return FileFault(name, "changed", "it begins with a byte order mark, as an editor would add")
    if b"\r" in data:
        return FileFault(name, "changed", "its lines end in CRLF, as an editor or a version control would make them")
    if data != json.dumps(json.loads(data), indent=2).encode() + b"\n":
        return FileFault(name, "changed", "it is not in the form in which it was written")
    return None


def checksum_fault(folder: Path) -> FileFault | None:
    """What is wrong with a manifest whose checksum is not that of its content; those of older versions hold none."""
    written = json.loads(read_limited(folder / MANIFEST_NAME))
    if written.pop("checksum", None) in (None, digest_of(written)):
        return None
    return FileFault(MANIFEST_NAME, "changed", "its checksum is not that of its content")


def abandoned_below(folder: Path) -> Iterator[Path]:
    """Files and folders that interrupted writers left below a folder; the next attempt sweeps or overwrites them."""
    for path in sorted(folder.rglob(f".*{TEMPORARY_SUFFIX}*")):
        if not any(parent.name.startswith(".") for parent in path.relative_to(folder).parents if parent.name):
            yield path
