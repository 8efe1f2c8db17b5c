"""What every stage has in common: found → run, resume, up to date, refuse, or name what is missing.

A stage is a function of its inputs (the outputs of earlier stages, by digest) and of its settings. `run_stage` holds the
state table of `docs/architecture.md`; the six modules beside this one say only what is particular to them.
"""

import platform
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from activedpo_cli.artifacts.lock import exclusive
from activedpo_cli.artifacts.manifest import Manifest, Started
from activedpo_cli.artifacts.run import Run
from activedpo_cli.artifacts.stage_folder import StageFolder, set_aside, swap_in
from activedpo_cli.config import with_changes
from activedpo_cli.errors import InvalidDataError, LabelsPendingError, NotReadyError
from activedpo_cli.progress import Progress
from activedpo_cli.settings import Config
from activedpo_cli.stages.differences import all_settings, given_differences, input_differences, refuse

PACKAGES = ("activedpo-cli", "torch", "transformers", "peft", "trl", "safetensors", "numpy")


@dataclass(frozen=True)
class Execution:
    """How to work, without effect on the result."""

    device: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """All that a stage needs to work."""

    run: Run
    iteration: int
    config: Config
    folder: StageFolder
    execution: Execution
    progress: Progress


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        settings: The settings that its result depends on, with dotted keys.
        inputs: Digests of the outputs it reads, by name; raises NotReadyError where one is missing.
        check: Looks before any work for what would make it fail, and raises the error.
        work: Fills the folder, skipping what is there already, and returns facts for people (the summary).
        headline: The summary in a few words.
        logs: Files that do not identify the result, because they hold times.

    """

    name: str
    version: int
    settings: Callable[[Config], dict[str, Any]]
    inputs: Callable[[Run, int, Config], dict[str, str]]
    work: Callable[[Context], dict[str, Any]]
    headline: Callable[[Mapping[str, Any]], str]
    check: Callable[[Context], None] = lambda context: None
    logs: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageResult:
    """A finished stage, and whether it had been finished before."""

    stage: Stage
    iteration: int
    folder: Path
    manifest: Manifest
    was_done: bool


def run_stage(
    run: Run,
    stage: Stage,
    iteration: int,
    given: Mapping[str, Any],
    *,
    force: bool,
    execution: Execution,
    progress: Progress,
) -> StageResult:
    """Bring one stage of one iteration to its finished state.

    Args:
        given: Settings given by flags, with dotted keys; they are written to `config.yaml` once all checks have passed.
        force: Make it again although it is finished or was begun with other settings.

    """
    folder = run.stage(stage.name, iteration)
    if not force and folder.manifest:
        return _up_to_date(run, stage, iteration, given, folder)
    with exclusive(run.lock_path(f"{folder.path.parent.name}-{stage.name}"), str(folder.path)):
        _set_unknown_aside(run, folder, force, progress)
        target = _target(run, stage, iteration, given, force)
        if target is None:
            return _up_to_date(run, stage, iteration, given, folder)
        manifest = _do(run, stage, iteration, given, target, execution, progress)
        if target.path != folder.path:
            swap_in(target, folder, run.stale)
    return StageResult(stage, iteration, folder.path, manifest, was_done=False)


def require(run: Run, stage: str, iteration: int) -> str:
    """The digest of what an earlier stage made; raises NotReadyError with the command to run when it is not finished."""
    folder = run.stage(stage, iteration)
    manifest = folder.manifest
    if manifest is None:
        state = "not finished" if folder.started else "missing"
        raise NotReadyError(f"`{stage}` of iteration {iteration} is {state}", hint=run.next_command(stage, iteration))
    return manifest.digest


def recorded_config(run: Run, record: Started | None, given: Mapping[str, Any]) -> Config:
    """The settings of begun or finished work, or of work to come: `config.yaml` with the given flags."""
    return with_changes(run.config, record.settings if record else given)


def _up_to_date(run: Run, stage: Stage, iteration: int, given: Mapping[str, Any], folder: StageFolder) -> StageResult:
    manifest = folder.manifest
    assert manifest is not None
    _refuse_differences(run, stage, iteration, given, manifest)
    gone = folder.missing_outputs()
    if gone:
        raise InvalidDataError(
            f"`{folder.path}` is finished, but files of it are missing or of another size",
            details=gone,
            hint=f"make it again with `{run.next_command(stage.name, iteration)} --force`",
        )
    return StageResult(stage, iteration, folder.path, manifest, was_done=True)


def _set_unknown_aside(run: Run, folder: StageFolder, force: bool, progress: Progress) -> None:
    """Files without an intact record of what they were made with are not continued, and not lost."""
    try:
        known = folder.manifest or folder.started
    except InvalidDataError:
        if not force:
            raise
        known = None
    if known is None and folder.path.is_dir() and any(folder.path.iterdir()):
        kept = set_aside(folder, run.stale)
        progress.warn(
            f"`{folder.path}` held files but no intact record of how they were made; they are now in `{kept}`"
        )


def _target(run: Run, stage: Stage, iteration: int, given: Mapping[str, Any], force: bool) -> StageFolder | None:
    """The folder to work in; None when another process finished the stage while this one waited."""
    folder = run.stage(stage.name, iteration)
    redone = run.redone_stage(stage.name, iteration)
    if redone.manifest and not folder.manifest:  # interrupted between the two renames of a swap
        swap_in(redone, folder, run.stale)
    if folder.manifest and not force:
        return None
    record = folder.started
    if record and not force:
        _refuse_differences(run, stage, iteration, given, record)
    if not folder.manifest:
        if record and force:
            set_aside(folder, run.stale)
        return folder
    _keep_only_same_work(run, stage, iteration, given, redone)
    return redone


def _keep_only_same_work(run: Run, stage: Stage, iteration: int, given: Mapping[str, Any], redone: StageFolder) -> None:
    record = redone.started
    if redone.path.exists() and (
        record is None
        or given_differences(run, record, given)
        or input_differences(record, stage.inputs(run, iteration, recorded_config(run, record, given)))
    ):
        set_aside(redone, run.stale)


def _refuse_differences(run: Run, stage: Stage, iteration: int, given: Mapping[str, Any], record: Started) -> None:
    config = recorded_config(run, record, {})
    differences = given_differences(run, record, given)
    differences += input_differences(record, stage.inputs(run, iteration, config))
    if differences:
        refuse(run, stage.name, iteration, differences)


def _do(
    run: Run,
    stage: Stage,
    iteration: int,
    given: Mapping[str, Any],
    target: StageFolder,
    execution: Execution,
    progress: Progress,
) -> Manifest:
    record = target.started
    config = recorded_config(run, record, given)
    started = record or Started(
        stage=stage.name,
        stage_version=stage.version,
        iteration=iteration,
        settings=stage.settings(config),
        inputs=stage.inputs(run, iteration, config),
    )
    context = Context(run, iteration, config, target, execution, progress)
    if record is None:
        given_differences(run, None, given)
        stage.check(context)
    with _given_settings_kept(run, target, all_settings(config, given) if record is None else {}):
        target.begin(started)
        began, clock = datetime.now(UTC), time.monotonic()
        try:
            summary = stage.work(context)
        finally:
            progress.stop()
    return target.finish(
        started,
        logs=stage.logs,
        summary=summary,
        execution=_execution_facts(execution, began, time.monotonic() - clock, resumed=record is not None),
        environment=environment(),
    )


@contextmanager
def _given_settings_kept(run: Run, target: StageFolder, given: dict[str, Any]) -> Iterator[None]:
    """Write given settings to `config.yaml`; back again when the work fails with nothing made, since they may be why."""
    before = run.config_text
    run.change_config(given)
    changed = run.config_text
    try:
        yield
    except LabelsPendingError:
        raise
    except Exception:
        if target.discard_if_empty() and run.config_text == changed != before:
            run.write_config(before)
        raise


def _execution_facts(execution: Execution, began: datetime, seconds: float, *, resumed: bool) -> dict[str, Any]:
    return {
        "device": execution.device,
        "host": socket.gethostname(),
        "started": began.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "resumed": resumed,
    }


def environment() -> dict[str, str]:
    """Versions of what the result was made with; recorded, never compared."""
    versions = {"python": platform.python_version(), "platform": f"{sys.platform} {platform.machine()}"}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
