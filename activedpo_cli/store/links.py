"""Refuses symbolic links inside a run, which could name any file of the person who works with it."""

import os
from pathlib import Path

from activedpo_cli.base.errors import InvalidDataError

NOT_LOOKED_AT = ".stale"
"""What lies there is never read again."""


def refuse_links(run: Path) -> None:
    """Raise InvalidDataError, naming it, for a symbolic link in a run; the run's own folder may be one."""
    waiting = [str(run)]
    while waiting:
        for entry in _entries(waiting.pop()):
            if entry.is_symlink():
                raise InvalidDataError(
                    f"`{entry.path}` is a symbolic link, and a run holds its own files",
                    hint="put what it names in its place; to keep a run elsewhere, link to the run's whole folder",
                )
            if entry.name != NOT_LOOKED_AT and entry.is_dir():
                waiting.append(entry.path)


def _entries(folder: str) -> "list[os.DirEntry[str]]":
    """What lies in a folder; nothing where it is gone, as folders of a command at work may be."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_inside(name: str) -> bool:
    """Whether a file name of a record stays in the folder that it is relative to."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\0" not in name
