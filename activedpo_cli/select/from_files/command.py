"""`select --features`: what the choice depends on, whether it is made already, and what is written down of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activedpo_cli.base import discovery
from activedpo_cli.base.config import build_config, nested
from activedpo_cli.base.errors import InvalidDataError, RefusedError, UsageError
from activedpo_cli.base.progress import Progress, shown
from activedpo_cli.base.settings import Config, current_key
from activedpo_cli.base.tensor_rows import TensorRows
from activedpo_cli.engine.names import with_known_names
from activedpo_cli.select.from_files.candidate_files import check_budget, read_candidate_files
from activedpo_cli.select.from_files.choice import PickLog, choose
from activedpo_cli.select.method_settings import check_given_settings, method_settings, settings_of_choice
from activedpo_cli.store.files import sha256_of, write_bytes
from activedpo_cli.store.lock import exclusive

SCHEMA = 2
RECORD_SUFFIX = ".made.json"
MEGABYTE = 10**6
OFFERED = {"features"}
"""What a method may need here."""


@dataclass(frozen=True)
class FilesRequest:
    """The command as it was typed; `memory` is in bytes."""

    features: Path
    pairs: Path
    labelled: Path | None
    output: Path
    given: Mapping[str, Any]
    memory: int
    force: bool


@dataclass(frozen=True)
class FilesResult:
    """What was picked, or found picked already; `passes` over all pairs where they were streamed."""

    output: Path
    was_done: bool
    summary: dict[str, Any]


def do_files_choice(request: FilesRequest, progress: Progress) -> FilesResult:
    """Pick the pairs and write them down, once; the output appears whole or not at all.

    Raises:
        UsageError: a setting is no setting of `select`, or the method needs more than features.
        RefusedError: the output is there and was made from something else.
        InvalidDataError: the files do not hold what they should, or λ is not positive.
        BusyError: another process makes this output.

    """
    config = _config(request, progress)
    _refuse_output(request)
    output = request.output.resolve()
    with exclusive(output.parent / ".locks" / f"{output.name}.lock", str(request.output)):
        record = _record(request, config, progress)
        found = _finished(request, record)
        if found is not None:
            return found
        log = PickLog(_log_path(request.output), record)
        try:
            return _make(request, config, record, log, progress)
        except KeyboardInterrupt as error:
            log.flush()
            kept = log.kept()  # also where the interruption came while a pick was being written
            raise type(error)(f"{kept} picks are kept" if kept else "nothing was picked yet") from error


def _make(
    request: FilesRequest, config: Config, record: Mapping[str, Any], log: PickLog, progress: Progress
) -> FilesResult:
    table = read_candidate_files(request.features, request.pairs, request.labelled, config, progress)
    check_budget(config, table, request.pairs)
    chosen = choose(config, table, request.memory, log, progress)
    lines = [
        {"pair_id": table.pairs.pair_id(row), "rank": rank, "score": score}
        for rank, (row, score) in enumerate(chosen.picks, start=1)
    ]
    summary = {
        "selected": len(lines),
        "candidates": len(table.pairs),
        "method": config.select.method,
        "first_score": lines[0]["score"],
        "last_score": lines[-1]["score"],
        "passes": chosen.passes,
        "pairs_read": chosen.pairs_read,
    }
    _write(request.output, lines, record, summary)
    log.remove()
    return FilesResult(request.output, False, summary)


def _config(request: FilesRequest, progress: Progress) -> Config:
    given = with_known_names(request.given)
    foreign = [key for key in given if key != "seed" and not key.startswith("select.")]
    if foreign:
        raise UsageError(
            f"`{foreign[0]}` has no meaning for pairs that come from files", details=["settings: seed and select.…"]
        )
    method = discovery.resolve("acquisition", given.get("select.method", Config().select.method))
    check_given_settings(given, method, progress)
    config = build_config(nested({"select.normalise": "none", **given}))
    method_settings(config)
    lacking = sorted(set(discovery.declared_needs("acquisition", method)) - OFFERED)
    if lacking:
        raise UsageError(
            f"method `{method}` needs {', '.join(lacking)}, which files of features do not have",
            hint=f"--method {Config().select.method}; all that can be used here: {_usable_methods()}",
        )
    return config


def _usable_methods() -> str:
    """Those that need no more than files of features have."""
    names = discovery.available("acquisition")
    return ", ".join(name for name in names if OFFERED.issuperset(discovery.declared_needs("acquisition", name)))


def _record(request: FilesRequest, config: Config, progress: Progress) -> dict[str, Any]:
    """What the choice depends on: settings with their defaults, and digests of the files."""
    paths = {"features": request.features, "pairs": request.pairs, "labelled": request.labelled}
    inputs = {name: None if path is None else _digest(path, progress) for name, path in paths.items()}
    return {"schema": SCHEMA, "settings": settings_of_choice(config), "inputs": inputs}


def _digest(path: Path, progress: Progress) -> str | dict[str, str]:
    if path.is_dir():
        return {file.name: _file_digest(file, progress) for file in TensorRows(path, "features").files}
    if not path.exists():
        raise InvalidDataError(f"there is no file {path}")
    return _file_digest(path, progress)


def _file_digest(path: Path, progress: Progress) -> str:
    """Its SHA-256; the bar is in whole megabytes, begun ones included."""
    read = 0
    with shown(progress, f"identifying {path.name}", _megabytes(path.stat().st_size), "MB") as advance:

        def tell(count: int) -> None:
            nonlocal read
            advance(_megabytes(read + count) - _megabytes(read))
            read += count

        return sha256_of(path, tell)


def _megabytes(size: int) -> int:
    return -(-size // MEGABYTE)


def _finished(request: FilesRequest, record: Mapping[str, Any]) -> FilesResult | None:
    """The output if it is there and made from the same; None where it is to be made."""
    output = request.output
    if not output.exists() or request.force:
        return None
    differences = ["nothing says what it was made from"]
    made = _read_record(_record_path(output))
    if made is not None:
        differences = _differences(made, record)
        if not differences and made.get("output") != sha256_of(output):
            differences = ["it was changed since"]
    if differences:
        raise RefusedError(
            f"{output} is there, and was not made by this command",
            details=differences,
            hint="--force replaces it; or another --output",
        )
    assert made is not None
    return FilesResult(output, True, made["summary"])


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("schema") == SCHEMA else None


def _differences(made: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    before, now = {current_key(key): value for key, value in made.get("settings", {}).items()}, record["settings"]
    changed = [
        f"{key}: {before.get(key)} then, {now.get(key)} now"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    files = made.get("inputs", {})
    return changed + [f"another --{name}" for name, digest in record["inputs"].items() if files.get(name) != digest]


def _write(output: Path, lines: list[dict[str, Any]], record: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """The record first: one without its output is made again, and an output without its record would be refused."""
    from hashlib import sha256

    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    made = {**record, "output": sha256(text).hexdigest(), "summary": summary}
    write_bytes(_record_path(output), json.dumps(made, indent=2, ensure_ascii=False).encode() + b"\n")
    write_bytes(output, text)


def _record_path(output: Path) -> Path:
    """The file beside an output that says what it was made from."""
    return output.with_name(f"{output.name}{RECORD_SUFFIX}")


def _log_path(output: Path) -> Path:
    """The picks so far, while the choice is being made."""
    return output.with_name(f".{output.name}.picks")


def _refuse_output(request: FilesRequest) -> None:
    """Raise UsageError where the output can not be written, or would replace a file that is read."""
    output, features, example = request.output, request.features, "--output picked.jsonl"
    if str(output) == "-":
        raise UsageError("--output needs a file: the record of what it was made from lies beside it", hint=example)
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder", hint=f"--output {output / 'picked.jsonl'}")
    if output.name.endswith(RECORD_SUFFIX):
        raise UsageError(f"--output {output} has the name of a record, which lies beside an output", hint=example)
    parent = next(parent for parent in output.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise UsageError(f"--output {output} can not be made, since {parent} is a file", hint=example)
    shards = features.glob("*.safetensors") if features.is_dir() else [features]
    read = {path.resolve() for path in [*shards, request.pairs, request.labelled] if path is not None}
    if output.resolve() in read:
        raise UsageError(f"--output {output} is one of the files to be read", hint=example)
    for path in (_record_path(output), _log_path(output)):
        if path.resolve() in read:
            raise UsageError(f"beside --output {output}, {path} is written, one of the files to be read", hint=example)
