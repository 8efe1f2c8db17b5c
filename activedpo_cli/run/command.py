"""From what was typed to a finished stage: find or make the run, settle the iteration, run the stage."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.combinations import unused
from activedpo_cli.base.config import build_config, with_changes
from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.launchers import Processes, Shard
from activedpo_cli.base.presets import read_preset
from activedpo_cli.base.progress import Progress
from activedpo_cli.engine.differences import given_differences, is_fixed, refuse, with_known_files
from activedpo_cli.engine.names import with_known_names
from activedpo_cli.engine.runner import StageOrder, StageRunner, run_stage
from activedpo_cli.engine.step import Execution, Stage, StageResult
from activedpo_cli.generate import pool
from activedpo_cli.run.create import RunRequest, discard, find_run, preset_for
from activedpo_cli.run.tracking import check_trackers, trackers_of
from activedpo_cli.select.method_settings import check_given_settings
from activedpo_cli.store.run import SFT, Run, run_path

if TYPE_CHECKING:
    from activedpo_cli.label.judge_plan import JudgePlan

STEPS = {
    "generate": "generate.step",
    "featurize": "features.step",
    "select": "select.step",
    "label": "label.step",
    "train": "train.step",
    "evaluate": "evaluate.step",
    SFT: "train.sft_step",
}
"""Where each stage is written."""


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
    options: Mapping[str, Any] = field(default_factory=dict)
    command: Sequence[str] = ()
    typed: Sequence[str] = ()
    shard: Shard | None = None
    processes: Processes | None = None
    track: Sequence[str] | None = None


def load_stage(name: str) -> Stage:
    """The stage of that name, imported on use."""
    return importlib.import_module(f"activedpo_cli.{STEPS[name]}").STAGE


def do_stage(request: StageRequest, progress: Progress, do: StageRunner | None = None) -> StageResult:
    """Do what the command asks for, here or by another runner of stages.

    A run made by this command goes away again when the stage fails before any work began.
    """
    request = replace(request, given=with_known_names(request.given))
    check_trackers(request.track or ())
    execution = Execution(
        request.device, request.options, typed=request.typed, shard=request.shard, processes=request.processes
    )
    wanted = RunRequest(
        run_path(request.run), request.preset, request.given, request.command, patience=execution.patience
    )
    run, made = find_run(wanted, progress, make=request.make_run)
    try:
        given = {} if made else changeable(run, request.given)
        iteration = 0 if request.stage == SFT else request.iteration or (run.iterations() or [1])[-1]
        refuse_foreign_sft(run, request.stage, given)
        if request.stage == "select":
            method = _method_of(run, request.given, iteration, request.force)
            check_given_settings(request.given, method, progress)
        for sentence in unused(with_changes(run.config, given), request.given):
            progress.warn(sentence)
        result = (do or run_stage)(
            StageOrder(
                run=run,
                stage=load_stage(request.stage),
                iteration=iteration,
                given=given,
                force=request.force,
                execution=execution,
                progress=progress,
            )
        )
    except BaseException:
        if made and discard(run):
            progress.note(f"took `{run.path}` away again, since nothing was made in it")
        raise
    if execution.speaks_for_all:
        with trackers_of(run, request.track, progress) as trackers:
            trackers.tell()
    return result


def plan_labels(request: StageRequest, progress: Progress) -> "JudgePlan":
    """What *label* would ask of a judge, by this command without its `--dry-run`; nothing is called, and nothing written."""
    from activedpo_cli.label.judge_plan import plan_of_stage

    wanted = RunRequest(run_path(request.run), None, with_known_names(request.given), request.command)
    run, _ = find_run(wanted, progress, make=False)
    iteration = request.iteration or (run.iterations() or [1])[-1]
    folder = run.stage("label", iteration)
    record = None if request.force else folder.manifest or folder.started
    given = with_known_files(record, load_stage("label").files, changeable(run, wanted.given))
    if differences := given_differences(run, record, given):
        refuse(run, "label", iteration, differences, given, Execution(typed=request.typed))
    config = load_stage("label").seen(run, record, given)
    ask_again = bool(request.options.get("ask-again"))
    return plan_of_stage(run, iteration, config, progress, anew=request.force, ask_again=ask_again)


def changeable(run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given settings of stages to come; those that are fixed for the run were compared when it was found."""
    known = pool.with_known_file(run, given)
    if "sft.data" in known:  # only then is the step of *sft* imported, with all that it needs
        from activedpo_cli.train.sft_step import with_known_data

        known = with_known_data(run, known)
    return {key: value for key, value in known.items() if not is_fixed(key)}


def refuse_foreign_sft(run: Run, stage: str, given: Mapping[str, Any]) -> None:
    """Raise UsageError where another stage is given settings of *sft*, which would stand in `config.yaml` unheeded."""
    own = {key: value for key, value in given.items() if key.startswith(f"{SFT}.")}
    if stage != SFT and own and with_changes(run.config, own) != run.config:
        raise UsageError(f"`{next(iter(own))}` is a setting of `{SFT}`", hint=f"{run.next_command(SFT, 0)} --data FILE")


def method_in_use(
    path: Path | None,
    given: Mapping[str, Any],
    iteration: int | None = None,
    *,
    preset: str | None = None,
    force: bool = False,
) -> str:
    """The method by which a command selects.

    It is the one that was given; else that of the finished selection, unless `force` makes it again; else that of
    `config.yaml`, or of the preset where the run at the path is still to be made. Without a path there is no run.
    """
    given = with_known_names(given)
    if path is not None and (path / "run.json").is_file():
        run = Run.open(path)
        return _method_of(run, given, iteration or (run.iterations() or [1])[-1], force)
    standing = {} if path is None else read_preset(preset_for(RunRequest(path, preset, given)))
    return given.get("select.method") or build_config(standing).select.method


def _method_of(run: Run, given: Mapping[str, Any], iteration: int, force: bool) -> str:
    record = None if force else run.stage("select", iteration).manifest
    return given.get("select.method") or (record.settings["select.method"] if record else run.config.select.method)
