"""What earlier versions left beside an output: a record of how it was made, or the picks of an unfinished choice."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from activedpo_cli.base.digests import sha256_of
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.base.settings import current_key
from activedpo_cli.engine.differences import differences_of_work
from activedpo_cli.engine.parts import Part
from activedpo_cli.select.from_files.choice import PICKS_NAME, picks_in
from activedpo_cli.store import files
from activedpo_cli.store.manifest import MANIFEST_NAME, Started

SCHEMA = 2


def finished(part: Part, output: Path) -> dict[str, Any] | None:
    """The summary of an output that an earlier version made of the same; None where it left no record of one.

    Raises what the part does where it was made of something else, or was changed since.
    """
    record = _record_path(output)
    if part.folder.path.exists() or not record.is_file() or not output.is_file():
        return None
    made = _read(read_limited(record))
    if made is None:
        return None
    differences = differences_of_work(_as_started(part, made), part.wanted)
    if not differences and made.get("output") != sha256_of(output):
        differences = ["it was changed since"]
    if differences:
        part.refuse(differences)
    return dict(made["summary"])


def has_picks(output: Path) -> bool:
    """Whether an earlier version left the picks of an unfinished choice."""
    return _log_path(output).is_file()


def adopt_picks(part: Part, output: Path) -> None:
    """Take over the picks of an unfinished choice, which are of use to one of the same only; the output's lock is held."""
    log = _log_path(output)
    head, _, lines = read_limited(log).partition(b"\n")
    made = _read(head, "choice")
    picks = lines[: lines.rfind(b"\n") + 1]
    if made is not None and picks_in(picks) and not part.folder.has(MANIFEST_NAME):
        started = _as_started(part, made)
        if part.folder.started in (None, started) and not part.folder.has(PICKS_NAME):
            part.folder.begin(started)
            files.write_bytes(part.folder.path / PICKS_NAME, picks)
    files.remove(log)


def remove_record(output: Path) -> None:
    """Take the record of an earlier version away, beside an output that this one has made."""
    if _record_path(output).is_file():
        files.remove(_record_path(output))


def _log_path(output: Path) -> Path:
    return output.with_name(f".{output.name}.picks")


def _record_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.made.json")


def _read(text: bytes, *within: str) -> dict[str, Any] | None:
    """The record in a text; None where it is damaged, or of another layout."""
    try:
        found: Any = json.loads(text)
        for name in within:
            found = found[name]
        return found if found["schema"] == SCHEMA and isinstance(found["settings"], dict) else None
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def _as_started(part: Part, made: Mapping[str, Any]) -> Started:
    """The record in the layout of this version."""
    inputs: dict[str, str] = {}
    for name, digest in made["inputs"].items():
        if isinstance(digest, dict):
            inputs |= {f"{name}/{file}": f"sha256:{text}" for file, text in digest.items()}
        elif digest is not None:
            inputs[name] = f"sha256:{digest}"
    settings = {current_key(key): value for key, value in made["settings"].items()}
    return part.wanted.model_copy(update={"settings": settings, "inputs": inputs})
