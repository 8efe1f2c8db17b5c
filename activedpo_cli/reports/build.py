"""Makes a report: page, figures and `report.json`, all at once or not at all, and only where something has changed."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from activedpo_cli import __version__
from activedpo_cli.base.errors import BusyError, NotReadyError, UsageError
from activedpo_cli.reports.report_folder import (
    FACTS_NAME,
    FIGURES_NAME,
    PAGE_NAME,
    SCHEMA,
    Inputs,
    check_replaceable,
    default_output,
    describe,
    inputs_of,
    run_names,
    standing_facts,
)
from activedpo_cli.reports.sources import finished_stages
from activedpo_cli.store import files
from activedpo_cli.store.lock import exclusive
from activedpo_cli.store.run import Run

MOST_NAMES = 6
"""Runs that a title names."""


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
    names = run_names(runs)
    folder = output or default_output(runs)
    place = folder.absolute() if folder.name.strip(".") else folder.resolve()  # `.` and `..` are no names
    inputs = inputs_of(runs, names)
    lock = place.parent / ".locks" / f"{place.name}.lock"
    if not force and (facts := standing_facts(folder, inputs)):
        _sweep(place, lock)
        return _result(folder, facts, made=False)
    check_replaceable(folder)
    with exclusive(lock, str(folder)):
        facts, contents = _contents(runs, names, inputs)
        files.write_folder_with(place, lambda temporary: _write(temporary, contents))
    return _result(folder, facts, made=True)


def _sweep(place: Path, lock: Path) -> None:
    """Remove what a process left that was killed while it put the report in its place."""
    if files.leftovers(place):
        with suppress(BusyError), exclusive(lock, str(place)):
            files.remove_leftovers(place)


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


def _contents(runs: Sequence[Run], names: Sequence[str], inputs: Inputs) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The facts of the report and the bytes of all its files, by name."""
    from activedpo_cli.reports.drawing import draw
    from activedpo_cli.reports.overlap_data import overlaps
    from activedpo_cli.reports.page import render_page
    from activedpo_cli.reports.run_data import read_run
    from activedpo_cli.reports.sections import all_sections
    from activedpo_cli.reports.summary import summary_sentence

    found = [read_run(run, name) for run, name in zip(runs, names, strict=True)]
    sections = all_sections(found)
    summaries = [summary_sentence(run) for run in found]
    plots = [plot for section in sections for plot in section.plots]
    drawn = {plot.name: draw(plot) for plot in plots}
    page = render_page(
        f"activedpo report: {_listed(names)}",
        summaries,
        sections,
        {name: kinds["svg"] for name, kinds in drawn.items()},
    )
    contents = {f"{FIGURES_NAME}/{name}.{kind}": data for name, kinds in drawn.items() for kind, data in kinds.items()}
    contents[PAGE_NAME] = page.encode()
    facts = {
        "schema": SCHEMA,
        "activedpo_cli": __version__,
        "summaries": summaries,
        "figures": {plot.name: asdict(plot) for plot in plots},
        "overlaps": [asdict(row) for row in overlaps(found)],
        "runs": [asdict(run) for run in found],
        "inputs": inputs,
        "outputs": describe(contents),
    }
    contents[FACTS_NAME] = json.dumps(facts, indent=1, ensure_ascii=True, allow_nan=False).encode() + b"\n"
    return facts, contents


def _listed(names: Sequence[str]) -> str:
    """The runs in a title: all of a few, else the first and how many there are."""
    return ", ".join(names) if len(names) <= MOST_NAMES else f"{names[0]} and {len(names) - 1} other runs"


def _write(folder: Path, contents: dict[str, bytes]) -> None:
    for name, data in contents.items():
        files.write_new(folder / name, data)


def _result(folder: Path, facts: dict[str, Any], *, made: bool) -> ReportResult:
    figures = {name: folder / FIGURES_NAME / f"{name}.png" for name in facts["figures"]}
    return ReportResult(page=folder / PAGE_NAME, figures=figures, made=made, summaries=list(facts["summaries"]))
