"""`Started` and `Manifest`: what a stage was made with and what it made; the latter's file says that it is finished."""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from activedpo_cli.base.digests import sha256_of
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.looking_once import once
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.base.settings import current_key
from activedpo_cli.store.files import remove, write_bytes
from activedpo_cli.store.jsonl import count_rows, parse_json
from activedpo_cli.store.links import is_inside
from activedpo_cli.store.tensors import count_tensor_rows

SCHEMA = 1
MANIFEST_NAME = "manifest.json"
STARTED_NAME = "started.json"
ATTEMPTS_NAME = ".attempts.json"
RECORD_NAMES = (MANIFEST_NAME, STARTED_NAME, ATTEMPTS_NAME)
"""Files of a step's folder that say how its other files were made, and are not made by the step."""


class OutputFile(BaseModel):
    """One file that a stage made; `rows` where it has rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    bytes: int
    rows: int | None = None


class Started(BaseModel):
    """What identifies a piece of work: noted before it begins, so that an interrupted one can be continued.

    `execution` does not identify it; it says how the work is done, of which the number of threads is kept when it goes on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: int = Field(default=SCHEMA, alias="schema")
    stage: str
    stage_version: int
    iteration: int
    settings: dict[str, Any]
    inputs: dict[str, str]
    execution: dict[str, Any] = {}

    @field_validator("settings")
    @classmethod
    def _as_spelled_now(cls, settings: dict[str, Any]) -> dict[str, Any]:
        return {current_key(key): value for key, value in settings.items()}


class Manifest(Started):
    """A finished stage. `outputs` identify it; `logs`, `summary`, `execution` and `environment` do not.

    `checksum` is the digest of all the rest, by which `verify` sees that the manifest itself was changed.
    """

    outputs: dict[str, OutputFile]
    logs: dict[str, OutputFile] = {}
    summary: dict[str, Any] = {}
    environment: dict[str, str] = {}
    checksum: str | None = None

    @field_validator("outputs", "logs")
    @classmethod
    def _stay_inside(cls, value: dict[str, OutputFile]) -> dict[str, OutputFile]:
        for name in value:
            if not is_inside(name):
                raise ValueError(f"{name!r} leads out of the stage's folder")
        return value

    @cached_property
    def digest(self) -> str:
        """The identity of what was made, which later stages record as their input."""
        return digest_of({name: output.sha256 for name, output in self.outputs.items()})


@dataclass(frozen=True)
class Attempts:
    """How often work was taken up until it was finished, and how long the attempts before the last one worked.

    Attributes:
        number: Attempts, the one that is under way included.
        seconds_before: Seconds of all earlier attempts together, each counted until the last file that it left.
        began: When the one under way began, in seconds since 1970, by the clock of the machine that works.

    """

    number: int
    seconds_before: float
    began: float


def note_attempt(folder: Path) -> None:
    """Note that work is taken up now, and how long the attempt before worked, if there was one.

    Both ends of that attempt are read from times that the file system gave, whose clock may not be this machine's.
    """
    before = read_attempts(folder)
    number, seconds = (before.number, before.seconds_before) if before else (0, 0.0)
    if before is not None:
        began = (folder / ATTEMPTS_NAME).stat().st_mtime
        newest = max((path.stat().st_mtime for path in _files_below(folder)), default=began)
        seconds += max(newest - began, 0.0)
    noted = Attempts(number + 1, round(seconds, 3), round(time.time(), 3))
    write_bytes(folder / ATTEMPTS_NAME, json.dumps(asdict(noted)).encode() + b"\n")


def read_attempts(folder: Path) -> Attempts | None:
    """The attempts that were noted of unfinished work; None where none were, or where the note is damaged."""
    try:
        return Attempts(**json.loads(read_limited(folder / ATTEMPTS_NAME)))
    except (OSError, ValueError, TypeError, InvalidDataError):
        return None


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.name != ATTEMPTS_NAME)


def digest_of(value: Any) -> str:
    """`sha256:…` of a value's canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def describe_files(folder: Path, names: list[str]) -> dict[str, OutputFile]:
    """Digest, size and rows of files of a folder."""
    return {name: _describe(folder / name) for name in sorted(names)}


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a finished stage, None if it is not finished."""
    return once(("manifest", folder), lambda: _read(folder / MANIFEST_NAME, Manifest))


def read_started(folder: Path) -> Started | None:
    """What was begun and not finished, None if nothing was."""
    return once(("started", folder), lambda: _read(folder / STARTED_NAME, Started))


def write_started(folder: Path, started: Started) -> None:
    """Note what identifies the work that begins now."""
    write_bytes(folder / STARTED_NAME, _encode(started))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Declare a stage finished."""
    checksum = digest_of(manifest.model_dump(by_alias=True, exclude={"checksum"}))
    write_bytes(folder / MANIFEST_NAME, _encode(manifest.model_copy(update={"checksum": checksum})))
    remove_beginning(folder)


def remove_beginning(folder: Path) -> None:
    """Take away the notes of work that was begun, which nobody needs when it is finished."""
    remove(folder / ATTEMPTS_NAME)
    remove(folder / STARTED_NAME)


def _describe(path: Path) -> OutputFile:
    rows = None
    if path.suffix == ".jsonl":
        rows = count_rows(path)
    elif path.suffix == ".safetensors":
        rows = count_tensor_rows(path)
    return OutputFile(sha256=sha256_of(path), bytes=path.stat().st_size, rows=rows)


def _encode(record: Started) -> bytes:
    return json.dumps(record.model_dump(by_alias=True), indent=2, allow_nan=False).encode() + b"\n"


def _read(path: Path, kind: type[Started]) -> Any:
    try:
        text = read_limited(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        record = kind.model_validate_json(text)
    except ValidationError:
        return _read_in_words(path, text, kind)
    _refuse_newer(path, record.schema_version)
    return record


def _read_in_words(path: Path, text: bytes, kind: type[Started]) -> Started:
    """The record of a text that the quick reader, stricter about JSON, does not take, or what is wrong with it."""
    data = parse_json(path, text)
    if isinstance(data, dict) and isinstance(data.get("schema"), int):
        _refuse_newer(path, data["schema"])
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidDataError(
            f"`{path}` is damaged", details=[f"{'.'.join(map(str, first['loc']))}: {first['msg']}"]
        ) from error


def _refuse_newer(path: Path, schema: int) -> None:
    if schema > SCHEMA:
        raise InvalidDataError(
            f"`{path}` was written by a newer version of activedpo (schema {schema}, this one reads {SCHEMA})",
            hint="update with `pip install --upgrade activedpo-cli`",
        )
