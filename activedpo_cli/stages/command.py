"""From what was typed to a finished stage: find or make the run, settle the iteration, run the stage."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from activedpo_cli import discovery
from activedpo_cli.artifacts.run import Run, run_path
from activedpo_cli.progress import Progress
from activedpo_cli.stages.base import Execution, Stage, StageResult
from activedpo_cli.stages.create import RunRequest, discard, ensure_run
from activedpo_cli.stages.names import with_known_names
from activedpo_cli.stages.runner import run_stage


@dataclass(frozen=True)
class StageRequest:
    """A stage command as it was typed."""

    stage: str
    run: str | None
    iteration: int | None
    given: Mapping[str, Any]
    force: bool = False
    device: str = "auto"
    preset: str | None = None
    make_run: bool = False
    ridge: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    command: Sequence[str] = ()


def load_stage(name: str) -> Stage:
    """The stage of that name, imported on use."""
    return importlib.import_module(f"activedpo_cli.stages.{name}").STAGE


def do_stage(request: StageRequest, progress: Progress) -> StageResult:
    """Do what the command asks for.

    A run made by this command goes away again when the stage fails before any work began.
    """
    path = run_path(request.run)
    request = replace(request, given=with_known_names(request.given))
    run, made = _find_run(request, path, progress)
    try:
        given = dict(request.given) if not made else {}
        iteration = request.iteration or (run.iterations() or [1])[-1]
        given |= ridge_setting(request.ridge, _method(request, run, iteration), progress)
        execution = Execution(request.device, request.options)
        return run_stage(
            run,
            load_stage(request.stage),
            iteration,
            given,
            force=request.force,
            execution=execution,
            progress=progress,
        )
    except BaseException:
        if made and not run.iterations():
            discard(run)
        raise


def _find_run(request: StageRequest, path: Path, progress: Progress) -> tuple[Run, bool]:
    if request.make_run and not (path / "run.json").is_file():
        return ensure_run(RunRequest(path, request.preset, request.given, request.command), progress)
    return Run.open(path), False


def ridge_setting(ridge: float | None, method: str, progress: Progress) -> dict[str, Any]:
    """The method's own ridge as a setting; a method without one ignores the flag, and says so."""
    if ridge is None:
        return {}
    method = discovery.resolve("acquisition", method)
    if "ridge" in discovery.setting_names("acquisition", method):
        return {f"select.{method.replace('-', '_')}.ridge": ridge}
    progress.warn(f"--ridge is ignored: method `{method}` has no ridge")
    return {}


def _method(request: StageRequest, run: Run, iteration: int) -> str:
    record = None if request.force else run.stage("select", iteration).manifest
    return request.given.get("select.method") or (
        record.settings["select.method"] if record else run.config.select.method
    )
