"""Drive the command line in this process, and look at run folders from outside."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

STAGES = ("generate", "featurize", "select", "label", "train", "evaluate")
RULE = "python:letter_rule:score"
PENDING = 5
"""The exit code where people have to answer, which is no error."""


def activedpo(*words: object, typed: str | None = None) -> Result:
    """Run one command; whatever happens it must not end in a bare exception or a traceback."""
    from activedpo_cli.cli.app import app

    result = CliRunner().invoke(app, [str(word) for word in words], input=typed)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert "unexpected" not in result.stderr, result.output
    return result


def done(*words: object, typed: str | None = None) -> Result:
    """Run a command that must succeed."""
    result = activedpo(*words, typed=typed)
    assert result.exit_code == 0, result.output
    return result


def refused(code: int, *words: object, typed: str | None = None) -> str:
    """Run a command that must fail with this exit code; returns what it told the person."""
    result = activedpo(*words, typed=typed)
    assert result.exit_code == code, f"exit code {result.exit_code}, not {code}: {result.output}"
    assert ("pending: " if code == PENDING else "error: ") in result.stderr
    return result.stderr


def is_told(said: str, missing: str) -> None:
    """Whether a person was told which package is missing, and how it is installed."""
    assert f"needs the package `{missing}`, which is not installed" in said
    assert "hint: pip install activedpo-cli" in said
    assert "bug" not in said


def on(run: Path, *words: object, iteration: int | None = None) -> tuple[object, ...]:
    """The words of a stage command on a run."""
    return (*words, "--run", run) + (() if iteration is None else ("--iteration", iteration))


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and modification time of every file of a run, its locks left out."""
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".locks" not in path.parts
    }


def without(files: dict[str, Any], *prefixes: str) -> dict[str, Any]:
    """The files that lie in none of some folders."""
    return {name: facts for name, facts in files.items() if not name.startswith(prefixes)}


def manifest(run: Path, iteration: int, stage: str) -> dict[str, Any]:
    """The manifest of a finished stage."""
    return json.loads((run / f"iter-{iteration:03d}" / stage / "manifest.json").read_bytes())


def outputs(run: Path, iteration: int, stage: str) -> dict[str, str]:
    """The digests of what a stage made, by file name."""
    return {name: facts["sha256"] for name, facts in manifest(run, iteration, stage)["outputs"].items()}


def all_outputs(run: Path) -> dict[str, dict[str, str]]:
    """The digests of everything that the finished stages of a run made; what a report says depends on when it was made."""
    return {
        path.parent.relative_to(run).as_posix(): {
            name: facts["sha256"] for name, facts in json.loads(path.read_bytes())["outputs"].items()
        }
        for path in sorted(run.rglob("manifest.json"))
        if ".stale" not in path.parts and not path.parent.name.startswith("report")
    }


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def list_again(run: Path, iteration: int, stage: str) -> None:
    """Let a finished stage's manifest list its files as they are now, as though the stage had written them so."""
    path = run / f"iter-{iteration:03d}" / stage / "manifest.json"
    record = json.loads(path.read_bytes())
    for group in ("outputs", "logs"):
        for name, facts in record[group].items():
            data = (path.parent / name).read_bytes()
            facts |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    path.write_text(json.dumps(record, indent=2) + "\n")


def make_partial(run: Path, iteration: int, stage: str, *lost: str) -> Path:
    """Leave a finished stage as an interruption would: begun, without its manifest and without some of its files."""
    folder = run / f"iter-{iteration:03d}" / stage
    record = json.loads((folder / "manifest.json").read_bytes())
    identity = ("schema", "stage", "stage_version", "iteration", "settings", "inputs")
    started = {key: record[key] for key in identity} | {"execution": {"threads": record["execution"]["threads"]}}
    (folder / "started.json").write_text(json.dumps(started))
    for name in ("manifest.json", *lost):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink()
    return folder
