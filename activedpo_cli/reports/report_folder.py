"""The folder of a report: what it was made from, whether it still stands, and whether it may be replaced."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from activedpo_cli import __version__
from activedpo_cli.base.errors import InvalidDataError, RefusedError
from activedpo_cli.reports.sources import identity_of
from activedpo_cli.store.jsonl import read_json
from activedpo_cli.store.manifest import digest_of
from activedpo_cli.store.run import Run

SCHEMA = 1
FACTS_NAME = "report.json"
PAGE_NAME = "index.html"
FIGURES_NAME = "figures"
LONGEST_NAME = 100
_OWN_FILE = re.compile(rf"{re.escape(PAGE_NAME)}|{re.escape(FACTS_NAME)}|{FIGURES_NAME}/[a-z-]+\.(png|svg)")

Inputs = dict[str, dict[str, str]]


def run_names(runs: Sequence[Run]) -> list[str]:
    """What each run is called: its folder's name, with its parent's where two have the same."""
    paths = [run.path.absolute() for run in runs]
    counts = Counter(path.name for path in paths)
    names = [path.name if counts[path.name] == 1 else f"{path.parent.name}/{path.name}" for path in paths]
    repeated = Counter(names)
    return [name if repeated[name] == 1 else f"{name} ({place})" for place, name in enumerate(names, start=1)]


def default_output(runs: Sequence[Run]) -> Path:
    """`RUN/report` for one run; for several `FIRST/report-SECOND-THIRD`."""
    others = [run.path.absolute().name for run in runs[1:]]
    name = "-".join(["report", *others])
    if len(name) > LONGEST_NAME:
        name = f"report-{len(others)}-others-{digest_of(others).removeprefix('sha256:')[:8]}"
    return runs[0].path / name


def inputs_of(runs: Sequence[Run], names: Sequence[str]) -> Inputs:
    """The digests of everything that a report about these runs depends on, by run and file."""
    return {name: identity_of(run) for name, run in zip(names, runs, strict=True)}


def standing_facts(output: Path, inputs: Inputs) -> dict[str, Any] | None:
    """The facts of the report that is there, None unless it was made from these inputs and all its files are there."""
    facts = _facts(output)
    if facts is None or facts.get("activedpo_cli") != __version__ or facts.get("inputs") != inputs:
        return None
    if list(facts["inputs"]) != list(inputs):  # the first run gets the first colour
        return None
    sizes = {name: output.joinpath(name) for name in facts["outputs"]}
    is_whole = all(
        path.is_file() and path.stat().st_size == facts["outputs"][name]["bytes"] for name, path in sizes.items()
    )
    return facts if is_whole else None


def check_replaceable(output: Path) -> None:
    """Raise RefusedError where something stands that is not a report, or more than one: it would be lost.

    The folder that a person is in is refused too: it is replaced as a whole, and their shell would stay in a deleted one.
    """
    if Path.cwd().is_relative_to(output.resolve()):
        raise RefusedError(
            f"`{output}` is the folder you are in or one that it lies in, and a report would take its place",
            hint="name another folder with --output FOLDER, or go to another one first",
        )
    is_folder = output.is_dir() and not output.is_symlink()
    names = (
        [path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir()] if is_folder else []
    )
    is_report = FACTS_NAME in names and all(_OWN_FILE.fullmatch(name) for name in names)
    if is_report or (is_folder and not names) or not (output.exists() or output.is_symlink()):
        return
    foreign = [name for name in names if not _OWN_FILE.fullmatch(name)] or names
    parts = sorted({name.partition("/")[0] for name in foreign}, key=lambda name: (name.startswith("."), name))
    raise RefusedError(
        f"`{output}` is not a report, and a report would take its place",
        details=[f"it holds `{name}`" for name in parts[:5]],
        hint="name another folder with --output FOLDER",
    )


def describe(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Digest and size of files, by name."""
    return {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in sorted(files.items())
    }


def _facts(output: Path) -> dict[str, Any] | None:
    """`report.json` where it is one of this layout."""
    try:
        facts = read_json(output / FACTS_NAME)
    except (InvalidDataError, OSError):
        return None
    is_known = isinstance(facts, dict) and facts.get("schema") == SCHEMA and isinstance(facts.get("outputs"), dict)
    return facts if is_known else None
