"""Where a choice without a run is written, and what must not lie there."""

from collections.abc import Iterable
from pathlib import Path

from activedpo_cli.base.errors import UsageError

RECORD_SUFFIX = ".made.json"


def record_path(output: Path) -> Path:
    """The file beside an output that says what it was made from."""
    return output.with_name(f"{output.name}{RECORD_SUFFIX}")


def log_path(output: Path) -> Path:
    """The picks so far, while the choice is being made."""
    return output.with_name(f".{output.name}.picks")


def refuse_output(output: Path, features: Path, others: Iterable[Path | None]) -> None:
    """Raise UsageError where the output can not be written, or would replace a file that is read."""
    example = "--output picked.jsonl"
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
    read = {path.resolve() for path in [*shards, *others] if path is not None}
    if output.resolve() in read:
        raise UsageError(f"--output {output} is one of the files to be read", hint=example)
    for path in (record_path(output), log_path(output)):
        if path.resolve() in read:
            raise UsageError(f"beside --output {output}, {path} is written, one of the files to be read", hint=example)
