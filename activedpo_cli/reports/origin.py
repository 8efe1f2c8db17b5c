"""Where the numbers come from: the runs, what differs between them, and the digest of every finished stage."""

import json
from collections.abc import Sequence

from activedpo_cli.reports.page import Section, Table, table
from activedpo_cli.reports.run_data import RunData


def origin_section(runs: Sequence[RunData], version: str) -> Section:
    """Runs, settings and digests."""
    tables = [_run_table(runs), _setting_table(runs), *(_stage_table(run) for run in runs)]
    return Section(
        anchor="origin",
        title="Where each number came from",
        sentences=[
            f"Made by activedpo {version}. report.json beside this page holds every number drawn here, each with the "
            "stage it was read from, and the digests of these stages.",
            *_warnings(runs),
        ],
        tables=[found for found in tables if found.rows],
    )


def _warnings(runs: Sequence[RunData]) -> list[str]:
    outdated = [
        f"{run.name}/{fact.name} was made from another {', '.join(fact.outdated)} than stands in the run now"
        for run in runs
        for fact in run.stages
        if fact.outdated
    ]
    unfinished = [f"{run.name}: {', '.join(run.unfinished)} not finished" for run in runs if run.unfinished]
    return [sentence + "." for sentence in outdated + unfinished]


def _run_table(runs: Sequence[RunData]) -> Table:
    rows = [
        [
            run.name,
            run.preset,
            run.model,
            run.model_digest.removeprefix("sha256:")[:16],
            ", ".join(run.methods),
            "" if run.seed is None else str(run.seed),
            run.made_by,
        ]
        for run in runs
    ]
    columns = ["run", "preset", "model", "digest of the model", "method", "seed", "made by version"]
    return table("Runs", columns, rows)


def _setting_table(runs: Sequence[RunData]) -> Table:
    """Settings in which the runs differ, or that changed from one iteration to another."""
    names = sorted({key for run in runs for key in run.settings})
    rows = []
    for name in names:
        values = [run.settings.get(name, []) for run in runs]
        if any(row != values[0] for row in values) or any(len(row) > 1 for row in values):
            rows.append([name, *(_shown(row) for row in values)])
    title = (
        "Settings that differ between the runs or changed on the way"
        if len(runs) > 1
        else "Settings that changed on the way"
    )
    return Table(title=title, columns=["setting", *(run.name for run in runs)], rows=rows)


def _shown(values: list[object]) -> str:
    return " → ".join(json.dumps(value, ensure_ascii=False) for value in values) or "\N{EN DASH}"


def _stage_table(run: RunData) -> Table:
    return table(
        f"Stages of {run.name}",
        ["stage", "file", "digest of what it made"],
        [[fact.name, fact.manifest, fact.digest] for fact in run.stages],
        is_folded=True,
    )
