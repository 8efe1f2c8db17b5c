"""The whole loop in one process: every stage that is not done, iteration after iteration."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from activedpo_cli.artifacts.run import STAGES, Run, run_path
from activedpo_cli.config import with_changes
from activedpo_cli.progress import Progress
from activedpo_cli.stages.base import Execution, StageResult
from activedpo_cli.stages.command import load_stage, ridge_setting
from activedpo_cli.stages.create import RunRequest, discard, ensure_run
from activedpo_cli.stages.differences import all_settings, is_fixed
from activedpo_cli.stages.names import with_known_names
from activedpo_cli.stages.runner import run_stage

DEFAULT_ITERATIONS = 5


@dataclass(frozen=True)
class LoopRequest:
    """A `run` command as it was typed."""

    run: str | None
    preset: str | None
    given: Mapping[str, Any]
    ridge: float | None = None
    iterations: int | None = None
    device: str = "auto"
    command: Sequence[str] = ()


def do_loop(request: LoopRequest, progress: Progress, on_stage: Callable[[StageResult], None]) -> Run:
    """Do all stages of all iterations; those that are done already cost next to nothing."""
    path = run_path(request.run)
    request = replace(request, given=with_known_names(request.given))
    if (path / "run.json").is_file():
        run, made = Run.open(path), False
    else:
        run, made = ensure_run(RunRequest(path, request.preset, request.given, request.command), progress)
    try:
        given = {} if made else dict(request.given)
        given |= ridge_setting(request.ridge, given.get("select.method", run.config.select.method), progress)
        last = request.iterations or max([*run.iterations(), 0]) or DEFAULT_ITERATIONS
        for iteration in range(1, last + 1):
            for name in STAGES:
                on_stage(_do_stage(run, name, iteration, given, request.device, progress))
    except BaseException:
        if made and not run.iterations():
            discard(run)
        raise
    return run


def _do_stage(
    run: Run, name: str, iteration: int, given: Mapping[str, Any], device: str, progress: Progress
) -> StageResult:
    """One stage with the given settings that concern it; those of other stages are theirs to check and to write."""
    stage = load_stage(name)
    mine = {key: value for key, value in given.items() if is_fixed(key) or key in _concerning(run, stage, given)}
    return run_stage(run, stage, iteration, mine, force=False, execution=Execution(device), progress=progress)


def _concerning(run: Run, stage: Any, given: Mapping[str, Any]) -> set[str]:
    sections = {"featurize": ("featurize.", "adapter."), "train": ("train.", "adapter.")}
    prefixes = sections.get(stage.name, (f"{stage.name}.",))
    return {key for key in all_settings(with_changes(run.config, given), given) if key.startswith(prefixes)}
