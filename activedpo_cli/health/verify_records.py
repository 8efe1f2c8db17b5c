"""What a run was made with: its records, prompts, settings and the weights of its reference."""

import shlex
from pathlib import Path
from typing import Any

from activedpo_cli.base.config import CONFIG_NAME
from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError
from activedpo_cli.engine.differences import refuse_changed_fixed_settings
from activedpo_cli.engine.intact import prompts_fault
from activedpo_cli.engine.repairs import other_run
from activedpo_cli.health.findings import Findings
from activedpo_cli.models.resolve import digest_of_files
from activedpo_cli.run.loop import LOOP_NAME, iterations_asked_for
from activedpo_cli.store.audit import file_fault, record_fault
from activedpo_cli.store.manifest import OutputFile, digest_of
from activedpo_cli.store.run import Run
from activedpo_cli.store.run_record import BASE_NAME, RUN_NAME


def verify_records(run: Run, findings: Findings) -> bool:
    """Look at them; says whether stages can be compared with them."""
    is_readable = _verify_record(run, RUN_NAME, lambda: run.facts, findings)
    if is_readable:
        _verify_checksum(run, findings)
        _verify_prompts(run, findings)
        is_readable &= _verify_config(run, findings)
    is_readable &= _verify_record(run, BASE_NAME, lambda: run.given_base, findings)
    _verify_weights(run, findings)
    _verify_loop(run, findings)
    return is_readable


def given_weights(run: Run) -> dict[str, Any]:
    """The files of the weights that the run was made with; none where they are of the hub, or the record is damaged."""
    try:
        files: dict[str, Any] = run.given_base["files"]
        return files
    except InvalidDataError:
        return {}


def _verify_record(run: Run, name: str, read: Any, findings: Findings) -> bool:
    try:
        read()
    except InvalidDataError as error:
        findings.add(run.path / name, "damaged", error.in_one_line, error.hint or other_run())
        return False
    fault = record_fault(run.path, name)
    if fault is not None:
        findings.add_fault(run.path, fault, other_run())
    return True


def _verify_checksum(run: Run, findings: Findings) -> None:
    """Whether `run.json` says what was written into it; those of older versions hold no checksum."""
    facts = dict(run.facts)
    checksum = facts.pop("checksum", None)
    if checksum is not None and checksum != digest_of(facts):
        findings.add(run.path / RUN_NAME, "changed", "its checksum is not that of its content", other_run())


def _verify_prompts(run: Run, findings: Findings) -> None:
    findings.files += 1
    fault = prompts_fault(run)
    if fault is not None:
        findings.add_fault(run.path, fault, other_run())


def _verify_config(run: Run, findings: Findings) -> bool:
    try:
        refuse_changed_fixed_settings(run)
    except ActiveDPOError as error:
        repair = error.hint or f"put right what is named there, or put a copy of {CONFIG_NAME} back"
        findings.add(run.path / CONFIG_NAME, "damaged", error.in_one_line, repair)
        return False
    return True


def _verify_weights(run: Run, findings: Findings) -> None:
    try:
        base = run.given_base
    except InvalidDataError:
        return
    if not base["files"]:
        findings.notes.append(f"the weights are those of {base['hub_id']} on the hub at {base['revision']}, not hashed")
        return
    folder = run.path / base["path"]  # an absolute path stays what it is
    if base["digest"] != digest_of_files({name: entry["sha256"] for name, entry in base["files"].items()}):
        findings.add(run.path / BASE_NAME, "changed", "its digest is not that of the files it lists", other_run())
    for name, entry in base["files"].items():
        findings.files += 1
        fault = file_fault(folder, name, OutputFile(**entry), findings.advance)
        if fault is not None:
            findings.add_fault(folder, fault, _repair_of_weights(run, base, folder))


def _repair_of_weights(run: Run, base: dict[str, Any], folder: Path) -> str:
    is_own = folder.is_relative_to(run.path)
    return (
        other_run()
        if is_own
        else f"put the files of {base['name']} back that the run was made with, or make another run"
    )


def _verify_loop(run: Run, findings: Findings) -> None:
    if not (run.path / LOOP_NAME).is_file():
        return
    try:
        iterations_asked_for(run)
    except InvalidDataError as error:
        findings.add(run.path / LOOP_NAME, "damaged", error.in_one_line, f"rm {shlex.quote(str(run.path / LOOP_NAME))}")
        return
    fault = record_fault(run.path, LOOP_NAME)
    if fault is not None:
        findings.add_fault(run.path, fault, f"rm {shlex.quote(str(run.path / LOOP_NAME))}")
