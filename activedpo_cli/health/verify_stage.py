"""One stage of a run: its files against its manifest, its answers, and what it was made from."""

from collections.abc import Iterator
from itertools import product

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, NotReadyError, OracleNotFoundError
from activedpo_cli.engine.differences import input_differences
from activedpo_cli.engine.intact import is_kept_beside
from activedpo_cli.engine.repairs import LOG_NAME, gone_parts, repair_of_shared, repair_of_stage
from activedpo_cli.engine.step import STAGE_INPUT, foreign_reasons
from activedpo_cli.health.findings import Findings
from activedpo_cli.health.verify_rewards import verify_rewards
from activedpo_cli.run.command import load_stage
from activedpo_cli.store.audit import FileFault, checksum_fault, listed_faults, record_fault, unknown_files
from activedpo_cli.store.manifest import MANIFEST_NAME, STARTED_NAME, Manifest
from activedpo_cli.store.run import SFT, STAGES, Run
from activedpo_cli.store.stage_folder import StageFolder

OWN_INPUTS = ("prompts", "reference", "pool")
"""Inputs that `foreign_reasons` compares."""


def verify_stage(
    run: Run, name: str, iteration: int, folder: StageFolder, findings: Findings, *, with_chain: bool
) -> None:
    """Hash what a stage made, and follow what it was made from where the run's own records can be read."""
    try:
        record = folder.manifest
    except InvalidDataError as error:
        fault = FileFault(MANIFEST_NAME, "damaged", error.in_one_line)
        findings.add_fault(folder.path, fault, error.hint or _repair(run, name, iteration, fault))
        return
    if record is None:
        _verify_unfinished(run, name, iteration, folder, findings)
        return
    faults = list(faults_of(folder, record, findings))
    for fault in faults:
        findings.add_fault(folder.path, fault, _repair(run, name, iteration, fault))
    if name == "initial-evaluation" and not faults:
        verify_rewards(run, record, findings)
    if with_chain:
        _verify_inputs(run, name, iteration, folder, record, findings)


def faults_of(folder: StageFolder, record: Manifest, findings: Findings) -> Iterator[FileFault]:
    """Every file of a folder that is not what its manifest says, the manifest itself and files that nobody made included."""
    findings.files += len(record.outputs) + len(record.logs)
    yield from filter(None, [record_fault(folder.path, MANIFEST_NAME), checksum_fault(folder.path)])
    for fault in listed_faults(folder, record, findings.advance):
        yield _torn(folder) or fault if fault.name == LOG_NAME else fault
    for fault in unknown_files(folder, record):
        if not is_kept_beside(record.stage, fault.name):
            yield fault


def _torn(folder: StageFolder) -> FileFault | None:
    """A last answer that was cut off, None where the log ends with a whole line or is not there."""
    path = folder.path / LOG_NAME
    data = path.read_bytes() if path.is_file() else b""
    tail = len(data) - data.rfind(b"\n") - 1
    return FileFault(LOG_NAME, "torn", f"its last line is cut off after {tail} bytes") if tail else None


def _verify_unfinished(run: Run, name: str, iteration: int, folder: StageFolder, findings: Findings) -> None:
    """Note what is not finished; its answers are looked at, and a record that can't be read is a problem."""
    if not folder.names("*"):
        _note_gone(run, name, iteration, folder, findings)
        return
    try:
        started = folder.started
    except InvalidDataError as error:
        fault = FileFault(STARTED_NAME, "damaged", error.in_one_line)
        findings.add_fault(folder.path, fault, error.hint or _repair(run, name, iteration, fault))
        return
    if started is None and folder.names("*"):
        fault = FileFault(MANIFEST_NAME, "missing", "it is gone, so nothing says how the files beside it were made")
        findings.add_fault(folder.path, fault, _repair(run, name, iteration, fault))
        return
    command = run.next_command(name, iteration) if name in (*STAGES, SFT) else "the stage that needs it"
    findings.notes.append(f"{_place(name, iteration)} is not finished; go on with: {command}")
    if name == "label":
        _verify_log(run, iteration, folder, findings)


def _verify_log(run: Run, iteration: int, folder: StageFolder, findings: Findings) -> None:
    fault = _torn(folder)
    if fault is not None:
        findings.add_fault(folder.path, fault, run.next_command("label", iteration))
    try:
        folder.label_log().labels()
    except InvalidDataError as error:
        fault = FileFault(LOG_NAME, "damaged", error.in_one_line)
        findings.add_fault(folder.path, fault, f"put a copy of {LOG_NAME} back: every line of it was paid for")


def _note_gone(run: Run, name: str, iteration: int, folder: StageFolder, findings: Findings) -> None:
    """Say what is gone: a problem where finished stages were made from it, save features from which pairs were picked."""
    if name not in (*STAGES, SFT):
        if made_with_it := gone_parts(run).get(name):
            fault = FileFault(MANIFEST_NAME, "missing", f"the folder is gone, and {made_with_it} was made with it")
            findings.add_fault(folder.path, fault, repair_of_shared(run, name))
        return
    made_from_it = next(_made_from(run, name, iteration), None)
    if made_from_it is None:
        return
    command = run.next_command(name, iteration)
    if name == "label":
        fault = FileFault(LOG_NAME, "missing", "answers that were trained on are gone")
        repair = f"put a copy of the folder back, or ask again: {command}"
        findings.add_fault(run.stage(name, iteration).path, fault, repair)
    elif name == "featurize":
        findings.notes.append(f"{_place(name, iteration)} was deleted; should it be needed: {command}")
    else:
        fault = FileFault(MANIFEST_NAME, "missing", f"the folder is gone, and {made_from_it} was made from it")
        findings.add_fault(run.stage(name, iteration).path, fault, command)


def _made_from(run: Run, name: str, iteration: int) -> Iterator[str]:
    """The finished stages that were made from what a stage made, in words."""
    for later, other in product(range(iteration, max(run.iterations(), default=0) + 1), STAGES):
        try:
            record = run.stage(other, later).manifest
        except InvalidDataError:
            continue
        if record is not None and f"iter-{iteration:03d}/{name}" in record.inputs:
            yield _place(other, later)


def _verify_inputs(
    run: Run, name: str, iteration: int, folder: StageFolder, record: Manifest, findings: Findings
) -> None:
    fault = FileFault(MANIFEST_NAME, "foreign", "")
    repair = _repair(run, name, iteration, fault)
    foreign = foreign_reasons(run, name, iteration, record)
    stale = [] if foreign else [*_stale_stages(run, record), *_stale_measures(run, record)]
    if not foreign:
        stale += _changed_outside(run, name, iteration, record, findings)
    for kind, reasons in (("foreign", foreign), ("stale", stale)):
        for reason in reasons:
            findings.add(folder.path / MANIFEST_NAME, kind, reason, repair)


def _stale_stages(run: Run, record: Manifest) -> Iterator[str]:
    """Inputs among the stages that have been made again since; those that are gone or damaged can't tell."""
    for name, recorded in record.inputs.items():
        match = STAGE_INPUT.fullmatch(name)
        if match is None:
            continue
        try:
            now = run.stage(match["stage"], int(match["iteration"])).manifest
        except InvalidDataError:
            continue
        if now is not None and now.digest != recorded:
            yield f"it was made from another `{name}` than the one that is there now"


def _stale_measures(run: Run, record: Manifest) -> Iterator[str]:
    """Whether an evaluation was compared with other responses of the initial model than those that are there."""
    compared_with = record.summary.get("initial_evaluation")
    try:
        initial = run.initial_evaluation.manifest
    except InvalidDataError:
        return
    if compared_with and initial is not None and initial.digest != compared_with:
        yield "it was compared with another evaluation of the initial model than the one that is there now"


def _changed_outside(run: Run, name: str, iteration: int, record: Manifest, findings: Findings) -> list[str]:
    """Inputs that lie outside of the run: oracles, files of responses, examples."""
    outside = [key for key in record.inputs if not STAGE_INPUT.fullmatch(key) and key not in OWN_INPUTS]
    if not outside or name not in (*STAGES, SFT):
        return []
    try:
        stage = load_stage(name)
        now = stage.inputs_beside(run, iteration, record)
    except (NotReadyError, InvalidDataError):
        return []  # reported where that file itself is verified
    except OracleNotFoundError as error:
        findings.notes.append(
            f"whether the oracle of {_place(name, iteration)} has changed can't be told: {error.message}"
        )
        return []
    except ActiveDPOError as error:
        return [f"its inputs can't be compared: {error.message}"]
    names = [key for key in outside if key in now]
    only = record.model_copy(update={"inputs": {key: record.inputs[key] for key in names}})
    return [
        f"it was made from something else: {line}" for line in input_differences(only, {key: now[key] for key in names})
    ]


def _repair(run: Run, name: str, iteration: int, fault: FileFault) -> str:
    if name in (*STAGES, SFT):
        return repair_of_stage(run, name, iteration, fault)
    return repair_of_shared(run, name)


def _place(name: str, iteration: int) -> str:
    return f"`{name}` of iteration {iteration}" if iteration else f"`{name}`"
