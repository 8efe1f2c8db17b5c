"""An `experiment` command from beginning to end: read the specification, check it, do what is not done, report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activedpo_cli.base.combinations import refuse_ineffective, refuse_unestimated, unused
from activedpo_cli.base.config import build_config, flat, nested, parse_assignment
from activedpo_cli.base.errors import ActiveDPOError, RefusedError, UsageError
from activedpo_cli.base.launchers import Shard
from activedpo_cli.base.presets import read_preset
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.settings import SECTIONS, Config
from activedpo_cli.engine.names import with_known_names
from activedpo_cli.engine.runner import StageRunner, run_stage
from activedpo_cli.engine.step import Execution
from activedpo_cli.experiments.folder import ExperimentFolder, Job
from activedpo_cli.experiments.spec import parse_seeds, read_spec, spec_path, with_settings
from activedpo_cli.experiments.work import do_jobs, prune
from activedpo_cli.models.resolve import resolve_model
from activedpo_cli.reports.page import Table
from activedpo_cli.run.create import RunRequest, preset_for
from activedpo_cli.select.method_settings import method_settings
from activedpo_cli.store.run import run_path


@dataclass(frozen=True, kw_only=True)
class ExperimentRequest:
    """An `experiment` command as it was typed; no arms or seeds means all."""

    spec: str
    output: Path | None = None
    runs_from: Path | None = None
    jobs: int = 1
    arms: Sequence[str] = ()
    seeds: str | None = None
    iterations: int | None = None
    set_: Sequence[str] = ()
    device: str = "auto"
    with_report: bool = True
    shard: Shard | None = None


@dataclass(frozen=True, kw_only=True)
class ExperimentResult:
    """How far an experiment is, and what it says so far.

    Attributes:
        runs: Runs that were asked for.
        done: Those of them that are finished.
        busy: Names of those that other processes work on.
        failed: Names of those that failed, with why.
        page: The report's page, None without a report.
        tables: The report's main tables.
        summary: The report's numbers.

    """

    folder: Path
    runs: int
    done: int
    busy: list[str]
    failed: dict[str, str]
    page: Path | None = None
    tables: list[Table] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)


def conduct(request: ExperimentRequest, progress: Progress, do: StageRunner = run_stage) -> ExperimentResult:
    """Do all runs that were asked for and are not done, and report on every finished run of the experiment.

    Stages are done by `do`, here or elsewhere, unless `jobs` asks for processes of their own.

    Raises UsageError for a specification, arm or seed that is not there and for settings that no run can have, RefusedError
    where runs stand that were made with other settings; nothing is made then.
    """
    spec = with_settings(read_spec(request.spec), dict(map(parse_assignment, request.set_)))
    if request.iterations is not None:
        spec = spec.model_copy(update={"iterations": request.iterations})
    name = spec_path(request.spec).stem
    folder = ExperimentFolder(request.output or run_path(name), spec, request.runs_from)
    jobs = folder.jobs(request.arms, _seeds(request.seeds))
    _check_source(request.runs_from)
    _check_standing(folder)
    _check_arms(folder, jobs, progress)
    folder.write_spec()
    missing = [job for job in jobs if not folder.is_done(job)]
    busy: list[str] = []
    if missing:
        busy = _work(request, folder, missing, progress, do)
    if not spec.keep_features:
        prune(folder, folder.jobs())
    # A run that failed at its very end, when the disk did not confirm its last record, counts as done and is told of once.
    undone = [job for job in jobs if job in missing or not folder.is_done(job)]
    failed = {job.path.name: text for job in undone if (text := folder.failure(job))}
    for job in jobs:
        if job not in undone and folder.failure(job):
            folder.note_failure(job, None)
    result = ExperimentResult(
        folder=folder.path,
        runs=len(jobs),
        done=sum(folder.is_done(job) for job in jobs),
        busy=busy,
        failed=failed,
    )
    return _reported(folder, result) if request.with_report and result.done else result


def _seeds(text: str | None) -> list[int]:
    try:
        return parse_seeds(text) if text else []
    except ValueError as error:
        raise UsageError(
            f"`--seeds {text}` is no list of seeds", details=[str(error)], hint="for instance `--seeds 0-4,7`"
        ) from error


def _work(
    request: ExperimentRequest, folder: ExperimentFolder, jobs: Sequence[Job], progress: Progress, do: StageRunner
) -> list[str]:
    """Do the runs here or in worker processes; returns the names of those that others are doing."""
    if request.jobs > 1:
        from activedpo_cli.experiments.workers import last_words, run_workers

        command = ["-m", "activedpo_cli", "experiment", request.spec, "--output", str(folder.path), "--no-report"]
        command += ["--device", request.device, "--quiet"]
        command += ["--arms", ",".join(request.arms)] if request.arms else []
        command += ["--seeds", request.seeds] if request.seeds else []
        command += ["--iterations", str(request.iterations)] if request.iterations else []
        command += [word for text in request.set_ for word in ("--set", text)]
        command += ["--runs-from", str(request.runs_from)] if request.runs_from else []
        codes = run_workers(folder, jobs, command, request.jobs, progress)
        left = [job for job in jobs if not folder.is_done(job) and not folder.failure(job)]
        busy = [job.path.name for job in left if folder.is_worked_on(job)]
        if len(busy) < len(left):
            dead = max(range(1, request.jobs + 1), key=lambda number: codes[number - 1] != 0)
            raise ActiveDPOError(
                f"worker {dead} ended with exit code {codes[dead - 1]}, and {len(left) - len(busy)} runs are not done",
                details=last_words(folder, dead),
                hint=f"its whole log is `{folder.log_path(dead)}`; the same command goes on",
            )
        return busy
    from activedpo_cli.models.kept_base import KeptBase

    execution = Execution(request.device, kept=KeptBase())  # of no shard, since a run is one process's
    progress.start("runs", len(jobs), "runs")
    try:
        waiting = do_jobs(folder, jobs, execution, progress, request.shard, lambda job: progress.advance(), do)
    finally:
        progress.stop()
    return [job.path.name for job in waiting]


def _reported(folder: ExperimentFolder, result: ExperimentResult) -> ExperimentResult:
    from dataclasses import replace

    from activedpo_cli.experiments.report import build_experiment_report

    report = build_experiment_report(folder)
    return replace(result, page=report.page, tables=report.tables, summary=report.summary)


def _check_standing(folder: ExperimentFolder) -> None:
    """Raise RefusedError where any run of the experiment was made with other settings than it has now.

    All of them are in the report, also those that this command was not asked for, so all have to agree. A setting that is
    left out counts as its default.
    """
    for job in folder.jobs():
        run = job.run
        if run is None or run.facts.get("given") == dict(job.settings):
            continue
        then = _values(str(run.facts["preset"]), run.facts["given"])
        now = _values(preset_for(RunRequest(job.path, folder.spec.preset, job.settings)), job.settings)
        differing = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
        if differing:
            raise RefusedError(
                f"`{job.path}` was made with other settings than the experiment has now",
                details=[f"{key}  {then.get(key, 'not set')} → {now.get(key, 'not set')}" for key in differing],
                hint="give the same settings again, or begin another folder with `--output FOLDER`",
            )


def _check_arms(folder: ExperimentFolder, jobs: Sequence[Job], progress: Progress) -> None:
    """Raise the error that an arm's first run would end with: a wrong setting, name or model; the arm is named."""
    models: set[tuple[str, str | None]] = set()
    for job in {job.arm: job for job in reversed(jobs) if job.run is None}.values():
        preset = preset_for(RunRequest(job.path, folder.spec.preset, job.settings))
        try:
            config = _config(preset, with_known_names(job.settings))
            method_settings(config)
            refuse_ineffective(config, "train", *(("sft",) if config.sft.data else ()))
            refuse_unestimated(config)
            for sentence in unused(config, job.settings):
                progress.warn(f"arm `{job.arm}`: {sentence}")
            model = config.model.name, config.model.revision
            if model not in models:
                resolve_model(*model, may_be_packed=True)
                models.add(model)
        except ActiveDPOError as error:
            error.message = f"arm `{job.arm}`: {error.message}"
            raise


def _check_source(path: Path | None) -> None:
    """Raise UsageError where the folder whose runs are to be used is none."""
    if path is not None and not (path / "runs").is_dir():
        raise UsageError(
            f"`{path}` holds no runs of an experiment", hint="name the folder of one: `--runs-from runs/NAME`"
        )


def _config(preset: str, settings: Mapping[str, Any]) -> Config:
    return build_config(nested(settings, read_preset(preset)))


def _values(preset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"preset": preset, **flat(_config(preset, settings), "seed", *SECTIONS)}
