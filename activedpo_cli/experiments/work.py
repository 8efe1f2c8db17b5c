"""Do the runs of an experiment in this process, one after the other, each under its lock."""

import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

from activedpo_cli.base.errors import ActiveDPOError, BusyError, LabelsPendingError, StorageError
from activedpo_cli.base.interruption import raise_if_requested
from activedpo_cli.base.launchers import Shard
from activedpo_cli.base.progress import Progress, SilentProgress
from activedpo_cli.engine.company import waits
from activedpo_cli.engine.runner import StageOrder, StageRunner, run_stage
from activedpo_cli.engine.step import Execution
from activedpo_cli.evaluate.initial_evaluation import initial_record
from activedpo_cli.experiments.folder import ExperimentFolder, Job
from activedpo_cli.experiments.results import rows_of
from activedpo_cli.experiments.sharing import borrow_initial_evaluation, borrow_stage
from activedpo_cli.run.command import load_stage
from activedpo_cli.run.create import RunRequest, ensure_run
from activedpo_cli.store import files
from activedpo_cli.store.lock import exclusive
from activedpo_cli.store.run import STAGES, Run


class _Quiet(SilentProgress):
    """Passes warnings on, each once: what one run warns of, all its siblings do."""

    def __init__(self, listener: Progress, said: set[str]) -> None:
        self._listener, self._said = listener, said

    def warn(self, message: str) -> None:
        """Say it unless it was said."""
        if message not in self._said:
            self._said.add(message)
            self._listener.warn(message)


def do_jobs(
    folder: ExperimentFolder,
    jobs: Sequence[Job],
    execution: Execution,
    progress: Progress,
    shard: Shard | None = None,
    on_done: Callable[[Job], None] = lambda job: None,
    do: StageRunner = run_stage,
) -> list[Job]:
    """Do every run that is not done and that nobody else works on; one that fails, however, leaves the others alone.

    One of several processes begins with runs of its own, whose seeds are its own where that can be, so that they take from
    each other what comes out the same. Then it does what others have left, and waits for what they do: the run of a process
    that dies is done by another.

    Returns those that others still work on; `ExperimentFolder.failure` says why one failed. Raises LabelsPendingError
    where people have to answer, which no experiment waits for.
    """
    failures = {job.path: folder.failure(job) for job in jobs}
    left = [job for job in jobs if not folder.is_done(job)]
    if shard:
        own = jobs[len(jobs) * shard.index // shard.count : len(jobs) * (shard.index + 1) // shard.count]
        left.sort(key=lambda job: job not in own)
    report, pauses = _Quiet(progress, set()), waits()
    while True:
        left = [job for job in left if _is_busy(folder, job, failures[job.path], execution, report, on_done, do)]
        if shard is None or not left:
            return [job for job in left if not folder.is_done(job)]
        next(pauses)


def _is_busy(
    folder: ExperimentFolder,
    job: Job,
    failure: str | None,
    execution: Execution,
    progress: Progress,
    on_done: Callable[[Job], None],
    do: StageRunner,
) -> bool:
    """Do a run unless it is done, or others failed at it since this `failure` of it was known; says whether others do it."""
    try:
        with exclusive(folder.lock_path(job), str(job.path)):
            if folder.failure(job) != failure:
                return False
            if not folder.is_done(job):  # another process may have done it since
                _do_job(folder, job, execution, progress, do)
                rows_of(folder, job)
        folder.note_failure(job, None)
    except BusyError:
        return True
    except LabelsPendingError:
        raise
    except ActiveDPOError as error:
        _note(folder, job, error, "\n".join([error.message, *error.details]))
    except Exception as error:
        raise_if_requested()  # a library may have made its own error of a signal
        _note(folder, job, error, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    on_done(job)
    return False


def _note(folder: ExperimentFolder, job: Job, error: Exception, message: str) -> None:
    """Remember why a run failed; where the disk does not take even that, it is what ends the experiment."""
    try:
        folder.note_failure(job, message)
    except StorageError:
        raise error from None


def prune(folder: ExperimentFolder, jobs: Sequence[Job]) -> None:
    """Delete the featurize folders of finished runs, those of the first iteration when all arms of a seed are done.

    Siblings take the first iteration's features from each other. Later stages pass over a stage deleted to save space.
    """
    unfinished = {job.seed for job in jobs if not folder.is_done(job)}
    for job in jobs:
        run = job.run
        if run is None or not folder.is_done(job):
            continue
        with suppress(BusyError), exclusive(folder.lock_path(job), str(job.path)):
            rows_of(folder, job)  # a process that was killed when the run was just finished has not kept what they cost
            for iteration in range(1, folder.spec.iterations + 1):
                path = run.stage("featurize", iteration).path
                files.remove_leftovers(path)  # a process that was killed here left them
                if path.is_dir() and (iteration > 1 or job.seed not in unfinished):
                    files.remove(path)


def _do_job(folder: ExperimentFolder, job: Job, execution: Execution, progress: Progress, do: StageRunner) -> None:
    run, _ = ensure_run(_request(folder, job), progress)
    for iteration in range(1, folder.spec.iterations + 1):
        for name in STAGES:
            is_pruned = name == "featurize" and run.stage("select", iteration).manifest is not None
            if not is_pruned and run.stage(name, iteration).manifest is None:
                _do_stage(run, name, iteration, _siblings(folder, job), execution, progress, do)


def _do_stage(
    run: Run,
    name: str,
    iteration: int,
    siblings: Sequence[Run],
    execution: Execution,
    progress: Progress,
    do: StageRunner,
) -> None:
    stage = load_stage(name)
    if name == "evaluate":
        borrow_initial_evaluation(run, initial_record(run, run.config), siblings)
    is_from_pool = name == "generate" and run.config.generate.responses is not None  # it fills pool/ on its way
    if not is_from_pool and borrow_stage(run, stage, iteration, siblings):
        return
    do(StageOrder(run=run, stage=stage, iteration=iteration, given={}, execution=execution, progress=progress))


def _siblings(folder: ExperimentFolder, job: Job) -> list[Run]:
    """All other runs of the seed where the runs are, also those of other experiments and of arms that are gone."""
    return [Run(path) for path in folder.runs_of(job.seed) if path != job.path]


def _request(folder: ExperimentFolder, job: Job) -> RunRequest:
    return RunRequest(job.path, folder.spec.preset, job.settings, ["activedpo", "experiment"])
