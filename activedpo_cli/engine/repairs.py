"""For each thing that can be wrong in a run the command that repairs it; none loses a file that cost anything."""

import shlex
from collections.abc import Callable
from itertools import product
from pathlib import Path

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.records import SelectedPair
from activedpo_cli.store.audit import FileFault, file_fault
from activedpo_cli.store.manifest import Manifest, Started
from activedpo_cli.store.run import SFT, STAGES, Run
from activedpo_cli.store.stage_folder import StageFolder

LOG_NAME = "labels.jsonl"
OUTCOMES_NAME = "outcomes.jsonl"


def repair_of(run: Run, record: Started, fault: FileFault) -> str:
    """What repairs a file of a stage that this record describes."""
    if record.stage not in (*STAGES, SFT):
        return repair_of_shared(run, record.stage)
    return repair_of_stage(run, record.stage, record.iteration, fault)


def repair_of_stage(run: Run, stage: str, iteration: int, fault: FileFault) -> str:
    """What repairs a file of one of the stages that have a command."""
    folder = run.stage(stage, iteration)
    if fault.kind == "unknown":
        return _move_away(run, folder, fault.name)
    again = f"{run.next_command(stage, iteration)} --force"
    if stage != "label":
        return again
    if not (_are_answers_intact(folder) or _are_outcomes_intact(folder)):
        return f"put a copy of {LOG_NAME} back, or ask again (its answers are kept in {run.stale}): {again}"
    partial = " --accept-partial" if _is_partial(run, folder, iteration) else ""
    return f"{run.next_command(stage, iteration)} --rebuild{partial}"


def _is_partial(run: Run, folder: StageFolder, iteration: int) -> bool:
    """Whether the stage was closed with selected pairs that nobody had answered, which alone are waited for again."""
    try:
        record = folder.manifest
    except InvalidDataError:
        selected = run.stage("select", iteration).read_rows("selection.jsonl", SelectedPair)
        return not folder.label_log().labels().keys() >= {pair.pair_id for pair in selected}
    return bool(record and record.summary.get("unanswered"))


def repair_of_shared(run: Run, stage: str) -> str:
    """What repairs a part that belongs to no iteration and is made by the first stage that needs it."""
    first = (run.iterations() or [1])[0]
    if stage == "initial-adapter":
        return f"rm -r {_quoted(run.initial_adapter)}"  # drawn again from its seed, to the same bytes
    if stage == "pool":
        away = f"mkdir -p {shlex.quote(str(run.stale))} && mv {_quoted(run.pool)} {shlex.quote(str(run.stale))}/ && "
        again = f"{run.next_command('generate', first)} --force{_responses_file(run, first)}"
        return (away if run.pool.names("*") else "") + again
    away = f"rm -r {_quoted(run.initial_evaluation)} && "
    again = f"{run.next_command('evaluate', first)} --force"
    return (away if run.initial_evaluation.names("*") else "") + again


def gone_parts(run: Run) -> dict[str, str]:
    """The pool and the evaluation of π_SFT where they are gone and finished stages need them: by name, one such stage.

    The initial adapter is drawn again unasked, to the same bytes.
    """
    found = {}
    if not run.pool.names("*"):
        found["pool"] = _first_made(run, lambda record: "pool" in record.inputs)
    if not run.initial_evaluation.names("*"):
        found["initial-evaluation"] = _first_made(run, lambda record: record.stage == "evaluate")
    return {name: stage for name, stage in found.items() if stage is not None}


def _first_made(run: Run, is_made_from_it: Callable[[Manifest], bool]) -> str | None:
    """The first finished stage of which this holds, in words; those whose records are damaged can't tell."""
    for iteration, stage in product(run.iterations(), STAGES):
        try:
            record = run.stage(stage, iteration).manifest
        except InvalidDataError:
            continue
        if record is not None and is_made_from_it(record):
            return f"`{stage}` of iteration {iteration}"
    return None


def _responses_file(run: Run, iteration: int) -> str:
    """The option that names the responses again, where the file that they were read from is not where it was."""
    try:
        record = run.stage("generate", iteration).manifest
        settings = record.settings if record else {"generate.responses": run.config.generate.responses}
    except (InvalidDataError, UsageError):
        return ""
    known = settings.get("generate.responses")
    return "" if known and Path(known).is_file() else " --responses FILE"


def other_run() -> str:
    """What is left where something is gone that was made with the run and that no stage makes."""
    return "put a copy of it back, or make another run: activedpo init --run OTHER_NAME …"


def _move_away(run: Run, folder: StageFolder, name: str) -> str:
    stale = shlex.quote(str(run.stale))
    return f"mkdir -p {stale} && mv {shlex.quote(str(folder.path / name))} {stale}/"


def _are_answers_intact(folder: StageFolder) -> bool:
    """Whether every whole line of the log is an intact answer; a torn last one was never acknowledged."""
    try:
        return bool(folder.label_log().labels())
    except (InvalidDataError, OSError):
        return False


def _are_outcomes_intact(folder: StageFolder) -> bool:
    """Whether every answer that counted still stands in the closed stage's list of outcomes."""
    try:
        listed = folder.manifest.outputs.get(OUTCOMES_NAME) if folder.manifest else None
    except InvalidDataError:
        return False
    return listed is not None and file_fault(folder.path, OUTCOMES_NAME, listed) is None


def _quoted(folder: StageFolder) -> str:
    return shlex.quote(str(folder.path))
