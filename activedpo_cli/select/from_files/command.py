"""`select --features`: what the choice depends on, whether it is made already, and what is written down of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activedpo_cli.base import discovery
from activedpo_cli.base.config import build_config, nested
from activedpo_cli.base.digests import sha256_of
from activedpo_cli.base.errors import InvalidDataError, RefusedError, UsageError
from activedpo_cli.base.progress import Progress, shown
from activedpo_cli.base.settings import Config
from activedpo_cli.base.tensor_rows import TensorRows
from activedpo_cli.engine.names import with_known_names
from activedpo_cli.engine.parts import Part, ensure
from activedpo_cli.engine.step import Execution
from activedpo_cli.engine.units import AtOnce
from activedpo_cli.select.from_files import older
from activedpo_cli.select.from_files.candidate_files import check_budget, read_candidate_files
from activedpo_cli.select.from_files.choice import PICKS_NAME, PickLog, choose
from activedpo_cli.select.method_settings import check_given_settings, method_settings, settings_of_choice
from activedpo_cli.store.lock import exclusive
from activedpo_cli.store.manifest import MANIFEST_NAME, Started
from activedpo_cli.store.stage_folder import StageFolder

VERSION = 1
FOLDER_SUFFIX = ".made"
"""Of the hidden folder beside an output in which it is made."""
PICKED_NAME = "picked.jsonl"
"""The output in that folder, whatever its copy is called."""
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
    part = _part(request, config, progress)
    if not request.force and (summary := older.finished(part, request.output)) is not None:
        return FilesResult(request.output, True, summary)
    if older.has_picks(request.output):
        with exclusive(part.lock, str(request.output)):
            older.adopt_picks(part, request.output)
    try:
        made, is_new = ensure(part, Execution(), progress, force=request.force)
    except KeyboardInterrupt as error:
        kept = PickLog(_work_folder(part) / PICKS_NAME).kept()
        raise type(error)(f"{kept} picks are kept" if kept else "nothing was picked yet") from error
    older.remove_record(request.output)  # once what it was about has been replaced
    return FilesResult(request.output, not is_new, made.summary)


def _part(request: FilesRequest, config: Config, progress: Progress) -> Part:
    """The choice as a part of the engine: in a hidden folder beside the output, which is a copy of what it makes."""
    output = request.output.resolve()

    def refuse(differences: list[str]) -> None:
        if request.output.exists():
            raise _foreign(request.output, differences)

    def replace(path: Path) -> None:
        if not request.force:
            refuse(["it was changed since"])

    folder = StageFolder(output.with_name(f".{output.name}{FOLDER_SUFFIX}"))

    def check() -> None:
        if not request.force and not folder.has(MANIFEST_NAME):
            refuse(["nothing says what it was made from"])

    return Part(
        folder=folder,
        lock=output.parent / ".locks" / f"{output.name}.lock",
        wanted=_wanted(request, config, progress),
        open=lambda folder: AtOnce(lambda: _make(request, config, folder, progress)),
        refuse=refuse,
        public=lambda name: output,
        replace=replace,
        check=check,
    )


def _work_folder(part: Part) -> Path:
    """Where the choice is being made: beside a finished one that it is to replace, else in its place."""
    return part.beside.path if part.folder.has(MANIFEST_NAME) else part.folder.path


def _foreign(output: Path, differences: list[str]) -> RefusedError:
    return RefusedError(
        f"{output} is there, and was not made by this command",
        details=differences,
        hint="--force replaces it; or another --output",
    )


def _make(request: FilesRequest, config: Config, folder: StageFolder, progress: Progress) -> dict[str, Any]:
    log = PickLog(folder.path / PICKS_NAME)
    try:
        table = read_candidate_files(request.features, request.pairs, request.labelled, config, progress)
        check_budget(config, table, request.pairs)
        chosen = choose(config, table, request.memory, log, progress)
    except KeyboardInterrupt:
        log.flush()
        raise
    lines = [
        {"pair_id": table.pairs.pair_id(row), "rank": rank, "score": score}
        for rank, (row, score) in enumerate(chosen.picks, start=1)
    ]
    folder.write_json_lines(PICKED_NAME, lines)
    log.remove()
    return {
        "selected": len(lines),
        "candidates": len(table.pairs),
        "method": config.select.method,
        "first_score": lines[0]["score"],
        "last_score": lines[-1]["score"],
        "passes": chosen.passes,
        "pairs_read": chosen.pairs_read,
    }


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


def _wanted(request: FilesRequest, config: Config, progress: Progress) -> Started:
    """What the choice depends on: settings with their defaults, and the content of the files."""
    inputs: dict[str, str] = {}
    for name, path in (("features", request.features), ("pairs", request.pairs), ("labelled", request.labelled)):
        if path is None:
            continue
        if path.is_dir():
            shards = TensorRows(path, "features").files
            inputs |= {f"{name}/{shard.name}": _file_digest(shard, progress) for shard in shards}
        elif path.exists():
            inputs[name] = _file_digest(path, progress)
        else:
            raise InvalidDataError(f"there is no file {path}")
    return Started(
        stage="select-files",
        stage_version=VERSION,
        iteration=0,
        settings=settings_of_choice(config),
        inputs=inputs,
    )


def _file_digest(path: Path, progress: Progress) -> str:
    """Its SHA-256; the bar is in whole megabytes, begun ones included."""
    read = 0
    with shown(progress, f"identifying {path.name}", _megabytes(path.stat().st_size), "MB") as advance:

        def tell(count: int) -> None:
            nonlocal read
            advance(_megabytes(read + count) - _megabytes(read))
            read += count

        return f"sha256:{sha256_of(path, tell)}"


def _megabytes(size: int) -> int:
    return -(-size // MEGABYTE)


def _refuse_output(request: FilesRequest) -> None:
    """Raise UsageError where the output can not be written, or would replace a file that is read."""
    output, features, example = request.output, request.features, "--output picked.jsonl"
    if str(output) == "-":
        raise UsageError("--output needs a file: the record of what it was made from lies beside it", hint=example)
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder", hint=f"--output {output / 'picked.jsonl'}")
    parent = next(parent for parent in output.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise UsageError(f"--output {output} can not be made, since {parent} is a file", hint=example)
    shards = features.glob("*.safetensors") if features.is_dir() else [features]
    read = {path.resolve() for path in [*shards, request.pairs, request.labelled] if path is not None}
    if output.resolve() in read:
        raise UsageError(f"--output {output} is one of the files to be read", hint=example)
