"""Makes a report: page, figures and `report.json`, all at once or not at all, and only where something has changed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import InvalidDataError, NotReadyError, RefusedError, UsageError
from activedpo_cli.base.progress import Progress, SilentProgress
from activedpo_cli.base.version import __version__
from activedpo_cli.engine.differences import differences_of_work
from activedpo_cli.engine.parts import Part, ensure
from activedpo_cli.engine.step import Execution
from activedpo_cli.engine.units import AtOnce
from activedpo_cli.reports.contents import (
    FACTS_NAME,
    FIGURES_NAME,
    PAGE_NAME,
    Inputs,
    report_contents,
    report_inputs,
)
from activedpo_cli.reports.sources import finished_stages
from activedpo_cli.store import files
from activedpo_cli.store.files import is_temporary
from activedpo_cli.store.jsonl import read_json
from activedpo_cli.store.manifest import RECORD_NAMES, Manifest, OutputFile, Started, digest_of
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder

LONGEST_NAME = 100
REPORT, VERSION = "report", 2
"""Version 1 had no summary on top of the page."""
_OWN_FILE = re.compile(
    rf"{re.escape(PAGE_NAME)}|{re.escape(FACTS_NAME)}|{FIGURES_NAME}/[a-z-]+\.(png|svg)|"
    + "|".join(map(re.escape, RECORD_NAMES))
)


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


def build_report(
    runs: Sequence[Run], output: Path | None = None, *, force: bool = False, progress: Progress | None = None
) -> ReportResult:
    """Make the report about some runs, in the first one's folder unless `output` says where; quick where it stands.

    Raises UsageError for a run named twice, NotReadyError for one without a finished stage, RefusedError where `output`
    holds something else, InvalidDataError for damaged files and BusyError while another process makes it.
    """
    _check_runs(runs)
    folder = output or _default_output(runs)
    # A path that ends in `.` or `..` has no name of its own.
    place = StageFolder(folder.absolute() if folder.name.strip(".") else folder.resolve())
    inputs = report_inputs(runs)
    report = Part(
        folder=place,
        lock=place.path.parent / ".locks" / f"{place.path.name}.lock",
        wanted=Started(
            stage=REPORT,
            stage_version=VERSION,
            iteration=0,
            settings={"activedpo_cli": __version__, "runs": list(inputs)},  # the first run gets the first colour
            inputs=_flat(inputs),
        ),
        open=lambda target: AtOnce(lambda: _make(runs, inputs, target)),
        is_usable=lambda standing: not standing.missing_outputs(),
    )
    made = None if force else record_of(place)
    stands = made is not None and not differences_of_work(made, report.wanted) and _is_whole(place, made)
    if force or not stands:
        _check_replaceable(folder)
        ensure(report, Execution(), progress or SilentProgress(), force=force)
    return _result(folder, place.read_json(FACTS_NAME), made=force or not stands)


def record_of(folder: StageFolder) -> Manifest | None:
    """What a report was made from and what it consists of; one of an earlier version says so in `report.json`.

    Raises InvalidDataError where the record is damaged.
    """
    made = folder.manifest
    if made is not None or not folder.has(FACTS_NAME):
        return made
    try:
        facts = read_json(folder.path / FACTS_NAME)
        if "outputs" not in facts:
            return None
        outputs = {name: OutputFile(**entry) for name, entry in facts["outputs"].items()}
        settings = {"activedpo_cli": facts["activedpo_cli"], "runs": list(facts["inputs"])}
        return Manifest(
            stage=REPORT,
            stage_version=1,
            iteration=0,
            settings=settings,
            inputs=_flat(facts["inputs"]),
            outputs=outputs,
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InvalidDataError(f"`{folder.path / FACTS_NAME}` is not the list of a report: {error}") from error


def inputs_about(record: Manifest, names: Sequence[str]) -> dict[str, str]:
    """What a report took from the run that goes by one of these names, by path in the run."""
    runs = record.settings["runs"]
    name = runs[0] if len(runs) == 1 else next((name for name in names if name in runs), None)
    prefix = f"{name}: "
    return {key.removeprefix(prefix): digest for key, digest in record.inputs.items() if key.startswith(prefix)}


def _flat(inputs: Inputs) -> dict[str, str]:
    return {f"{run}: {path}": digest for run, files in inputs.items() for path, digest in files.items()}


def _is_whole(folder: StageFolder, record: Manifest) -> bool:
    sizes = {name: folder.path / name for name in record.outputs}
    return all(path.is_file() and path.stat().st_size == record.outputs[name].bytes for name, path in sizes.items())


def _make(runs: Sequence[Run], inputs: Inputs, folder: StageFolder) -> dict[str, Any]:
    for name, data in report_contents(runs, list(inputs)).items():
        files.write_bytes(folder.path / name, data)
    return {"runs": len(runs)}


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
    paths = [path for path in output.rglob("*") if not path.is_dir()] if is_folder else []
    names = [path.relative_to(output).as_posix() for path in paths if not is_temporary(path)]
    is_report = not {FACTS_NAME, *RECORD_NAMES}.isdisjoint(names) and all(_OWN_FILE.fullmatch(name) for name in names)
    if is_report or (is_folder and not names) or not (output.exists() or output.is_symlink()):
        return
    foreign = [name for name in names if not _OWN_FILE.fullmatch(name)] or names
    parts = sorted({name.partition("/")[0] for name in foreign}, key=lambda name: (name.startswith("."), name))
    raise RefusedError(
        f"`{output}` is not a report, and a report would take its place",
        details=[f"it holds `{name}`" for name in parts[:5]],
        hint="name another folder with --output FOLDER",
    )


def _result(folder: Path, facts: dict[str, Any], *, made: bool) -> ReportResult:
    figures = {name: folder / FIGURES_NAME / f"{name}.png" for name in facts["figures"]}
    return ReportResult(page=folder / PAGE_NAME, figures=figures, made=made, summaries=list(facts["summaries"]))
