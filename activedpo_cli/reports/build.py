"""Makes a report: page, figures and `report.json`, all at once or not at all, and only where something has changed."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activedpo_cli import __version__
from activedpo_cli.base.errors import BusyError, InvalidDataError, NotReadyError, RefusedError, UsageError
from activedpo_cli.reports.contents import (
    FACTS_NAME,
    FIGURES_NAME,
    PAGE_NAME,
    SCHEMA,
    Inputs,
    report_contents,
    report_inputs,
)
from activedpo_cli.reports.sources import finished_stages
from activedpo_cli.store import files
from activedpo_cli.store.jsonl import read_json
from activedpo_cli.store.lock import exclusive
from activedpo_cli.store.manifest import digest_of
from activedpo_cli.store.run import Run

LONGEST_NAME = 100
_OWN_FILE = re.compile(rf"{re.escape(PAGE_NAME)}|{re.escape(FACTS_NAME)}|{FIGURES_NAME}/[a-z-]+\.(png|svg)")


@dataclass(frozen=True, kw_only=True)
class ReportResult:
    """A report that stands.

    Attributes:
        page: The page.
        figures: The PNG of each figure by name; `reward` is there wherever somebody scored.
        made: Whether it was made now; it was up to date otherwise.
        summaries: Each run in a sentence.

    """

    page: Path
    figures: dict[str, Path]
    made: bool
    summaries: list[str]


def build_report(runs: Sequence[Run], output: Path | None = None, *, force: bool = False) -> ReportResult:
    """Make the report about some runs, in the first one's folder unless `output` says where; quick where it stands.

    Raises UsageError for a run named twice, NotReadyError for one without a finished stage, RefusedError where `output`
    holds something else, InvalidDataError for damaged files and BusyError while another process makes it.
    """
    _check_runs(runs)
    folder = output or _default_output(runs)
    place = (
        folder.absolute() if folder.name.strip(".") else folder.resolve()
    )  # a path that ends in `.` or `..` lacks a name
    inputs = report_inputs(runs)
    lock = place.parent / ".locks" / f"{place.name}.lock"
    if not force and (facts := _standing_facts(folder, inputs)):
        _sweep(place, lock)
        return _result(folder, facts, made=False)
    _check_replaceable(folder)
    with exclusive(lock, str(folder)):
        contents = report_contents(runs, inputs)
        files.write_folder_with(place, lambda temporary: _write(temporary, contents))
    return _result(folder, json.loads(contents[FACTS_NAME]), made=True)


def _check_runs(runs: Sequence[Run]) -> None:
    paths = [run.path.resolve() for run in runs]
    for run, path in zip(runs, paths, strict=True):
        if paths.count(path) > 1:
            raise UsageError(f"`{run.path}` is named twice")
        if not any(manifest.iteration for manifest in finished_stages(run).values()):
            raise NotReadyError(
                f"no stage of `{run.path}` is finished, so there is nothing to report",
                hint=run.next_command("generate", (run.iterations() or [1])[0]),
            )


def _default_output(runs: Sequence[Run]) -> Path:
    """`RUN/report` for one run; for several `FIRST/report-SECOND-THIRD`."""
    others = [run.path.absolute().name for run in runs[1:]]
    name = "-".join(["report", *others])
    if len(name) > LONGEST_NAME:
        name = f"report-{len(others)}-others-{digest_of(others).removeprefix('sha256:')[:8]}"
    return runs[0].path / name


def _standing_facts(output: Path, inputs: Inputs) -> dict[str, Any] | None:
    """The facts of the report that is there, None unless it was made from these inputs and all its files are there."""
    facts = _facts(output)
    if facts is None or facts.get("activedpo_cli") != __version__ or facts.get("inputs") != inputs:
        return None
    if list(facts["inputs"]) != list(inputs):  # the order counts, since the first run gets the first colour
        return None
    sizes = {name: output.joinpath(name) for name in facts["outputs"]}
    is_whole = all(
        path.is_file() and path.stat().st_size == facts["outputs"][name]["bytes"] for name, path in sizes.items()
    )
    return facts if is_whole else None


def _facts(output: Path) -> dict[str, Any] | None:
    """`report.json` where it is one of this layout."""
    try:
        facts = read_json(output / FACTS_NAME)
    except (InvalidDataError, OSError):
        return None
    is_known = isinstance(facts, dict) and facts.get("schema") == SCHEMA and isinstance(facts.get("outputs"), dict)
    return facts if is_known else None


def _check_replaceable(output: Path) -> None:
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


def _sweep(place: Path, lock: Path) -> None:
    """Remove what a process left that was killed while it put the report in its place."""
    if files.leftovers(place):
        with suppress(BusyError), exclusive(lock, str(place)):
            files.remove_leftovers(place)


def _write(folder: Path, contents: dict[str, bytes]) -> None:
    for name, data in contents.items():
        files.write_new(folder / name, data)


def _result(folder: Path, facts: dict[str, Any], *, made: bool) -> ReportResult:
    figures = {name: folder / FIGURES_NAME / f"{name}.png" for name in facts["figures"]}
    return ReportResult(page=folder / PAGE_NAME, figures=figures, made=made, summaries=list(facts["summaries"]))
