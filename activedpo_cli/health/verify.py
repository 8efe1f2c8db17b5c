"""`activedpo verify`: hashes every file of a run, follows every input, names what is wrong and what repairs it.

Changes nothing, takes no lock and loads no model. Work that is not finished, and what interrupted writers left, is noted
and no problem.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.progress import Progress, shown
from activedpo_cli.health.findings import Findings
from activedpo_cli.health.verify_records import given_weights, verify_records
from activedpo_cli.health.verify_report import verify_reports
from activedpo_cli.health.verify_stage import verify_stage
from activedpo_cli.store.audit import abandoned_below
from activedpo_cli.store.manifest import OutputFile
from activedpo_cli.store.run import SFT, STAGES, Run
from activedpo_cli.store.stage_folder import StageFolder

SHARED = {"pool": "pool", "initial-adapter": "initial_adapter", "initial-evaluation": "initial_evaluation"}
"""Stages that belong to no iteration, and the property of a run that is their folder."""


def verify_run(run: Run, progress: Progress) -> dict[str, Any]:
    """What is wrong in a run: `sound`, `problems` as in `findings.Problem`, `notes`, and how much was hashed."""
    run.forget_digests()
    folders = list(_folders(run))
    with shown(progress, "hashing", _bytes_to_hash(run, [folder for _, _, folder in folders]), "bytes") as advance:
        findings = Findings(run.path, advance)
        are_records_usable = verify_records(run, findings)
        for name, iteration, folder in folders:
            verify_stage(run, name, iteration, folder, findings, with_chain=are_records_usable)
        verify_reports(run, findings)
    for path in abandoned_below(run.path):
        findings.notes.append(
            f"`{path.relative_to(run.path)}` was left by an interrupted writer; the next one removes it"
        )
    return {
        "run": str(run.path),
        "sound": not findings.problems,
        "files": findings.files,
        "bytes": findings.bytes,
        "problems": [asdict(problem) for problem in findings.problems],
        "notes": findings.notes,
    }


def _folders(run: Run) -> Iterator[tuple[str, int, StageFolder]]:
    """Every place where a stage may be, those first that others are made from."""
    yield SFT, 0, run.stage(SFT, 0)
    for name, place in SHARED.items():
        yield name, 0, getattr(run, place)
    for iteration in range(1, max(run.iterations(), default=0) + 1):
        for name in STAGES:
            yield name, iteration, run.stage(name, iteration)


def _bytes_to_hash(run: Run, folders: list[StageFolder]) -> int:
    sizes = [entry["bytes"] for entry in given_weights(run).values()]
    for folder in folders:
        try:
            record = folder.manifest
        except InvalidDataError:
            continue
        listed: dict[str, OutputFile] = {**record.outputs, **record.logs} if record else {}
        sizes += [output.bytes for output in listed.values()]
    return sum(sizes)
