"""What is done, begun, stale or missing in a run, and the command that comes next. Loads no model and no torch."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from activedpo_cli.base.config import with_changes
from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, NotReadyError, OracleNotFoundError
from activedpo_cli.base.looking_once import looking_once, once
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.differences import all_settings, input_differences, version_difference
from activedpo_cli.engine.intact import prompts_fault
from activedpo_cli.engine.repairs import gone_parts, repair_of_shared, repair_of_stage
from activedpo_cli.engine.step import place_of, require
from activedpo_cli.run.command import load_stage
from activedpo_cli.store.audit import FileFault
from activedpo_cli.store.manifest import MANIFEST_NAME, Manifest, Started
from activedpo_cli.store.run import SFT, STAGES, Run
from activedpo_cli.store.stage_folder import StageFolder

NO_PART = "not part of this run"
"""The state of *evaluate* where a run holds out no prompts."""
DELETED = "deleted to save space"
"""The state of *featurize* where only what was chosen from it is left."""
WITHOUT_RECORD = f"{MANIFEST_NAME} is gone, so nothing says how the files beside it were made"
OLDER_RECORD = "report.json"
"""What identifies a report that an earlier version made."""
MEASURED = ("iteration", "labels_spent", "reward_mean", "scorer")
"""What every evaluation says."""
FILLED_IN = ("featurize.compute", "evaluate.scorer", "evaluate.max_new_tokens")
"""Settings that are null in `config.yaml` and that the stage fills in."""


def run_status(run: Run, with_agreement: bool = False) -> dict[str, Any]:
    """The state of every stage of every iteration, and the next command.

    A stage is `complete`, `partial`, `stale` (made from inputs that have changed since), `missing`, `deleted to save space`
    where *featurize* is gone and the pairs are chosen, or, as *evaluate* of a run that holds out no prompts, `not part of
    this run`. `notes` says where `config.yaml` now differs from what a stage was made with, which changes stages to come.
    `damaged` are other files than those of stages: prompts, what iterations share, and reports; whether the content of a
    file is what was written is for `verify` to say. How far people agree takes drawing, and is worked out where asked for.
    """
    with looking_once():
        return _run_status(run, with_agreement)


def _run_status(run: Run, with_agreement: bool) -> dict[str, Any]:
    run.forget_digests()
    iterations = [
        {"iteration": iteration, "stages": {name: stage_status(run, name, iteration) for name in STAGES}}
        for iteration in range(1, max(run.iterations(), default=1) + 1)
    ]
    config = run.config
    sft = stage_status(run, SFT, 0) if run.stage(SFT, 0).path.exists() or config.sft.data else None
    damaged = damaged_parts(run)
    return {
        "run": str(run.path),
        "model": run.base["name"],
        "method": config.select.method,
        "budget": config.select.budget,
        "labels_spent": sum(_labels_spent(run, iteration) for iteration in run.iterations()),
        "sft": sft,
        "iterations": iterations,
        "evaluations": evaluations(run),
        **(_agreement(iterations, run) if with_agreement else {}),
        "damaged": damaged,
        "next": _next(run, sft, iterations, damaged),
    }


def _agreement(iterations: list[dict[str, Any]], run: Run) -> dict[str, Any]:
    """How far people agree, where anything was asked to measure it, be it in an open stage, and can be read."""
    from activedpo_cli.label.agreement import agreement, as_json
    from activedpo_cli.label.standing import measuring_counts

    with suppress(InvalidDataError):
        labels = [(row["iteration"], row["stages"]["label"]) for row in iterations]
        if any("measuring" in status.get("summary", {}) for _, status in labels) or any(
            measuring_counts(run.stage("label", iteration).label_log().answers())
            for iteration, status in labels
            if status["state"] == "partial"
        ):
            return {"agreement": as_json(agreement(run))}
    return {}


def stage_status(run: Run, name: str, iteration: int) -> dict[str, Any]:
    """The state of one stage, with its headline, its summary, and the reasons why it is stale."""
    stage, folder = load_stage(name), run.stage(name, iteration)
    try:
        manifest = folder.manifest
        record = manifest or folder.started
    except ActiveDPOError as error:
        return {"state": "damaged", "reasons": [error.message], "notes": []}
    if record is None and folder.names("*"):
        return {"state": "damaged", "reasons": [WITHOUT_RECORD], "notes": []}
    if record is None:
        return {"state": _state_without_files(run, name, iteration), "reasons": [], "notes": []}
    reasons = _stale_reasons(run, stage, iteration, record)
    if manifest and (gone := folder.missing_outputs()):
        return {"state": "damaged", "reasons": [f"{name} is missing or of another size" for name in gone], "notes": []}
    state = "stale" if reasons else "complete" if manifest else "partial"
    return {
        "state": state,
        "reasons": reasons,
        "notes": _drift(run.config, record) + _redo_note(run, name, iteration),
        "headline": stage.headline(manifest.summary) if manifest else f"{folder.so_far()} so far",
        "summary": dict(manifest.summary) if manifest else {},
        "seconds": manifest.execution.get("seconds") if manifest else None,
        "digest": manifest.digest if manifest else None,
    }


def damaged_parts(run: Run) -> dict[str, list[str]]:
    """What belongs to no stage and is not whole, by its path in the run, with the reasons."""
    found: dict[str, list[str]] = {}
    fault = prompts_fault(run)
    if fault is not None:
        found[fault.name] = [fault.what]
    found |= {
        _name_in(run, _shared(run)[name]): [f"it is gone, and {stage} was made with it"]
        for name, stage in gone_parts(run).items()
    }
    reports = [StageFolder(path) for path in sorted(run.path.glob("report*")) if path.is_dir()]
    for folder in (*_shared(run).values(), *reports):
        reasons = _faults(folder)
        if reasons:
            found[_name_in(run, folder)] = reasons
    return found


def _shared(run: Run) -> dict[str, StageFolder]:
    """The parts that iterations share, by the names of their stages."""
    return {
        "pool": run.pool,
        "initial-adapter": run.initial_adapter,
        "initial-evaluation": run.initial_evaluation,
    }


def _name_in(run: Run, folder: StageFolder) -> str:
    return folder.path.relative_to(run.path).as_posix()


def _faults(folder: StageFolder) -> list[str]:
    """Why a part can't be used; one that was begun and is not finished can."""
    try:
        if folder.manifest:
            return [f"{name} is missing or of another size" for name in folder.missing_outputs()]
        is_unknown = folder.started is None and bool(folder.names("*")) and not folder.has(OLDER_RECORD)
    except InvalidDataError as error:
        return [error.message]
    return [WITHOUT_RECORD] if is_unknown else []


def _state_without_files(run: Run, name: str, iteration: int) -> str:
    if name == "evaluate" and run.config.prompts.eval_prompts == 0:
        return NO_PART
    return DELETED if name == "featurize" and _is_deleted(run, iteration) else "missing"


def _is_deleted(run: Run, iteration: int) -> bool:
    """Whether features are gone from which pairs were chosen."""
    return not run.stage("featurize", iteration).path.exists() and bool(
        _intact_manifest(run.stage("select", iteration))
    )


def _has_deleted_features(run: Run, iteration: int, record: Started) -> bool:
    """Whether finished picks were made from features that are gone, which nobody needs any more."""
    places = [place_of(name) for name in record.inputs if name.endswith("/featurize")]
    gone = [place for place in places if place and not run.stage(*place).path.exists()]
    return bool(gone) and _intact_manifest(run.stage("select", iteration)) is not None


def _redo_note(run: Run, name: str, iteration: int) -> list[str]:
    if not run.is_being_redone(name, iteration):
        return []
    return [f"being made again: go on with `{run.next_command(name, iteration)} --force`"]


def evaluations(run: Run) -> list[dict[str, Any]]:
    """The metrics of the initial model and of every evaluated iteration, in order."""
    folders = [run.initial_evaluation, *(run.stage("evaluate", iteration) for iteration in run.iterations())]
    measured = [folder for folder in folders if _intact_manifest(folder) and folder.has("metrics.json")]
    return [folder.read_object("metrics.json", *MEASURED) for folder in measured]


def _stale_reasons(run: Run, stage: Any, iteration: int, record: Started) -> list[str]:
    try:
        if stage.name == "select" and _has_deleted_features(run, iteration, record):
            require(run, "select", iteration)  # as the stages that follow do, which pass over what was deleted
            return version_difference(record, stage.version, stage.standing)
        if other := version_difference(record, stage.version, stage.standing):
            return other
        return input_differences(record, stage.inputs_beside(run, iteration, record))
    except NotReadyError as error:
        return [error.message]
    except OracleNotFoundError:
        return []  # it may be found from another folder; a finished stage is not stale for that
    except ActiveDPOError as error:
        return [f"its inputs can't be checked: {error.message}"]


def _drift(config: Config, record: Started) -> list[str]:
    """Settings whose value in `config.yaml` is not the one the stage was made with."""
    return once(("drift", record.stage, repr(record.settings)), lambda: _drifted(config, record))


def _drifted(config: Config, record: Started) -> list[str]:
    recorded: Mapping[str, Any] = record.settings
    now = all_settings(config, recorded)
    made = all_settings(with_changes(config, recorded), recorded)
    return [
        f"{key} was {made[key]}, `config.yaml` now says {value}"
        for key, value in now.items()
        if made[key] != value and not (key in FILLED_IN and value is None) and not _belongs_to_later(record.stage, key)
    ]


def _belongs_to_later(stage: str, key: str) -> bool:
    """Whether a setting is the next stage's own, so that it is expected to be given after this one."""
    return stage == "select" and key.startswith("label.")


def _labels_spent(run: Run, iteration: int) -> int:
    manifest = _intact_manifest(run.stage("label", iteration))
    return manifest.summary["labels_spent"] if manifest else 0


def _intact_manifest(folder: StageFolder) -> Manifest | None:
    """The manifest of a finished stage; a damaged one is reported with its stage and counts as none here."""
    try:
        return folder.manifest
    except InvalidDataError:
        return None


def _next(
    run: Run, sft: dict[str, Any] | None, iterations: list[dict[str, Any]], damaged: Mapping[str, list[str]]
) -> str:
    for name, folder in _shared(run).items():  # nothing that needs them can be made before them
        if _name_in(run, folder) in damaged:
            return repair_of_shared(run, name)
    before = [{"iteration": 0, "stages": {SFT: sft}}] if sft and not run.has_begun() else []
    for row in before + iterations:
        for name, status in row["stages"].items():
            is_begun = status["state"] == "partial"  # in its own place; what lies beside it waits
            is_being_redone = not is_begun and run.is_being_redone(name, row["iteration"])
            if status["state"] == "damaged" and name == "label":
                return _repair_of_answers(run, row["iteration"])
            if status["state"] in ("stale", "damaged") or is_being_redone:
                return run.next_command(name, row["iteration"]) + " --force"
            if status["state"] not in ("complete", NO_PART, DELETED):
                return run.next_command(name, row["iteration"])
    return run.next_command("generate", iterations[-1]["iteration"] + 1)


def _repair_of_answers(run: Run, iteration: int) -> str:
    """The command that keeps the answers that were paid for, where they are intact."""
    repair = repair_of_stage(run, "label", iteration, FileFault(MANIFEST_NAME, "damaged", ""))
    return repair if repair.startswith("activedpo ") else f"{run.next_command('label', iteration)} --force"
