"""An `experiment` command from beginning to end: read the specification, do what is not done, report."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activedpo_cli.base.config import parse_assignment
from activedpo_cli.base.errors import ActiveDPOError, UsageError
from activedpo_cli.base.progress import Progress
from activedpo_cli.engine.step import Execution
from activedpo_cli.experiments.agreement import check_arms, check_source, check_standing
from activedpo_cli.experiments.folder import ExperimentFolder, Job
from activedpo_cli.experiments.spec import parse_seeds, read_spec, spec_path, with_settings
from activedpo_cli.experiments.work import do_jobs, prune
from activedpo_cli.reports.page import Table
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


def conduct(request: ExperimentRequest, progress: Progress) -> ExperimentResult:
    """Do all runs that were asked for and are not done, and report on every finished run of the experiment.

    Raises UsageError for a specification, arm or seed that is not there and for settings that no run can have, RefusedError
    where runs stand that were made with other settings; nothing is made then.
    """
    spec = with_settings(read_spec(request.spec), dict(map(parse_assignment, request.set_)))
    if request.iterations is not None:
        spec = spec.model_copy(update={"iterations": request.iterations})
    name = spec_path(request.spec).stem
    folder = ExperimentFolder(request.output or run_path(name), spec, request.runs_from)
    jobs = folder.jobs(request.arms, _seeds(request.seeds))
    check_source(request.runs_from)
    check_standing(folder)
    check_arms(folder, jobs)
    folder.write_spec()
    missing = [job for job in jobs if not folder.is_done(job)]
    busy: list[str] = []
    if missing:
        busy = _work(request, folder, missing, progress)
    if not spec.keep_features:
        prune(folder, folder.jobs())
    failed = {job.path.name: text for job in jobs if not folder.is_done(job) and (text := folder.failure(job))}
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


def _work(request: ExperimentRequest, folder: ExperimentFolder, jobs: Sequence[Job], progress: Progress) -> list[str]:
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

    execution = Execution(request.device, kept=KeptBase())
    progress.start("runs", len(jobs), "runs")
    try:
        waiting = do_jobs(folder, jobs, execution, progress, lambda job: progress.advance())
    finally:
        progress.stop()
    return [job.path.name for job in waiting]


def _reported(folder: ExperimentFolder, result: ExperimentResult) -> ExperimentResult:
    from dataclasses import replace

    from activedpo_cli.experiments.report import build_experiment_report

    report = build_experiment_report(folder)
    return replace(result, page=report.page, tables=report.tables, summary=report.summary)
