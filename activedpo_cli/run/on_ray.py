"""Stages on the workers of a Ray cluster, or of a small one on this machine: `--executor ray`.

Ray starts processes, gives each its GPUs, and starts one again that died. What they do is what `--shard` does: they claim
units in the run's folder, which all of them see. A stage's name and given settings travel, and where Python looks for
code; the environment, in which secrets may be, does not. The process that asks needs no GPU, and does itself what needs
none: *select*, and asking people.
"""

import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import ActiveDPOError, NotReadyError, TravelledError, UsageError
from activedpo_cli.base.hub_code import fetch_no_code
from activedpo_cli.base.launchers import Shard
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.settings import Config
from activedpo_cli.base.threads import WORKERS, prepare
from activedpo_cli.engine.runner import StageOrder, run_stage
from activedpo_cli.engine.step import Execution, StageResult
from activedpo_cli.run.command import load_stage
from activedpo_cli.store.run import Run

TRIES_AGAIN = 3
"""How often a worker that died is started again."""
STORE_BYTES = 80_000_000
"""The least that Ray takes for its own store of objects on this machine, in which nothing of ours lies."""
SILENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Ray reports to its makers unless it is told not to."""


@dataclass(frozen=True)
class RayOptions:
    """How many workers, with how many GPUs each (None: one where the cluster has any), and where the cluster is.

    Without an address a cluster is started on this machine, and ends with the command.
    """

    workers: int
    gpus: float | None = None
    address: str | None = None


@dataclass(frozen=True)
class _Job:
    """What one worker is asked: a stage of an iteration, and the place in which it was asked for."""

    run: str
    stage: str
    iteration: int
    given: Mapping[str, Any]
    force: bool
    device: str
    options: Mapping[str, Any]
    typed: Sequence[str]
    shard: Shard | None
    folder: str
    path: Sequence[str]


@dataclass(frozen=True)
class Ended:
    """How a worker ended: what it warned of, and what went wrong, as facts of an error, if anything did."""

    warnings: Sequence[str] = ()
    failure: Mapping[str, Any] | None = None


class _Heard(Progress):
    """Keeps warnings, which the command passes on."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


class RayStages:
    """Brings stages to their finished state as `run_stage` does, on Ray's workers."""

    def __init__(self, options: RayOptions) -> None:
        require_ray()
        self._options = options

    def __call__(self, order: StageOrder) -> StageResult:
        """Bring one stage of one iteration to its finished state.

        What is made again by `force` is made by one worker, since one that comes late would begin it once more.

        Raises what `run_stage` raises, by whichever worker; ActiveDPOError where workers die again and again.
        """
        if _is_done_here(order):
            return run_stage(order)
        stage, progress = order.stage, order.progress
        is_shared = stage.is_shared(_settings(order)) and not order.force
        number = self._options.workers if is_shared else 1
        jobs = [_job(order, Shard(index, number) if number > 1 else None) for index in range(number)]
        gpus = _reach(self._options)
        progress.note(
            f"`{stage.name}` of iteration {order.iteration} on {number} worker{'s' if number > 1 else ''} of Ray"
        )
        ended = _carried_out(jobs, gpus)
        failures = [one.failure for one in ended if one.failure is not None]
        for warning in dict.fromkeys(warning for one in ended for warning in one.warnings):
            progress.warn(warning)
        if order.run.stage(stage.name, order.iteration).manifest is None or (order.force and failures):
            raise _told(failures)
        for failure in failures:
            progress.warn(f"a worker failed, and the others did its units: {failure['message']}")
        return replace(run_stage(replace(order, force=False)), was_done=False)


def require_ray() -> None:
    """Raise ActiveDPOError where Ray is not installed."""
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError as error:
        raise ActiveDPOError(
            "--executor ray needs the package `ray`, which is not installed",
            hint="pip install 'activedpo-cli[ray]', or start several commands with --shard I/N",
        ) from error


def _is_done_here(order: StageOrder) -> bool:
    """Whether this process does it: it is there already, or the step says so."""
    if not order.force and order.run.stage(order.stage.name, order.iteration).manifest:
        return True
    return order.stage.is_done_here(_settings(order))


def _settings(order: StageOrder) -> Config:
    """What the stage will see when it begins, or goes on."""
    begun = None if order.force else order.run.stage(order.stage.name, order.iteration).started
    return order.stage.seen(order.run, begun, order.given)


def _job(order: StageOrder, shard: Shard | None) -> _Job:
    return _Job(
        run=str(order.run.path.absolute()),
        stage=order.stage.name,
        iteration=order.iteration,
        given=dict(order.given),
        force=order.force,
        device=order.execution.device,
        options=dict(order.execution.options),
        typed=tuple(order.execution.typed),
        shard=shard,
        folder=os.getcwd(),
        path=tuple(str(Path(part or ".").absolute()) for part in sys.path),
    )


def _carried_out(jobs: Sequence[_Job], gpus: float) -> list[Ended]:
    """Have workers do the jobs; how each ended."""
    import ray

    # A process that has used a GPU keeps memory of it until it ends; another one need not import everything again.
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=TRIES_AGAIN, max_calls=1 if gpus else 0)(work)
    pending = [task.remote(job) for job in jobs]
    ended = []
    try:
        while pending:
            [ready], pending = ray.wait(pending, num_returns=1)
            ended.append(_ended(ready))
    except BaseException:  # Ctrl-C: workers end with the connection. Cancelling what just ends would bring Ray down.
        ray.shutdown()
        raise
    return ended


def _ended(ready: Any) -> Ended:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        ended: Ended = ray.get(ready)
    except RayTaskError as error:
        last = str(error).strip().splitlines()[-1]
        return Ended(failure={"message": f"a worker of Ray failed: {last}", "code": ActiveDPOError.exit_code})
    except RayError as error:
        last = str(error).strip().splitlines()[-1]
        died = f"a worker of Ray died {TRIES_AGAIN + 1} times"
        return Ended(failure={"message": died, "details": [last], "code": ActiveDPOError.exit_code})
    return ended


def work(job: _Job) -> Ended:
    """In a worker: do the units that nobody else does, until all are there."""
    os.environ[WORKERS] = str(job.shard.count if job.shard else 1)
    sys.path[:] = [*job.path, *(part for part in sys.path if part not in job.path)]
    prepare()
    fetch_no_code()
    execution = Execution(job.device, job.options, typed=job.typed, shard=job.shard)
    heard = _Heard()
    try:
        _stand_in(job.folder)
        run_stage(
            StageOrder(
                run=Run.open(Path(job.run)),
                stage=load_stage(job.stage),
                iteration=job.iteration,
                given=job.given,
                force=job.force,
                execution=execution,
                progress=heard,
            )
        )
    except ActiveDPOError as error:
        return Ended(heard.warnings, error.to_travel())
    return Ended(heard.warnings)


def _stand_in(folder: str) -> None:
    """Go where the command was typed, since names of files may be relative to it."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise NotReadyError(
            f"the worker on {socket.gethostname()} does not see `{folder}`, where the command was typed: {error.strerror}",
            hint="type it in a folder that all nodes share, and name the run by a path that is the same on all of them",
        ) from error


def _told(failures: Sequence[Mapping[str, Any]]) -> ActiveDPOError:
    """The error that says most: one that a worker explained, rather than that it died."""
    assert failures, "a stage that no worker failed at is finished"
    return TravelledError(next((failure for failure in failures if failure.get("hint")), failures[0]))


def _reach(options: RayOptions) -> float:
    """Reach the cluster, or start one here, for as long as this process lives; returns how many GPUs each worker gets.

    Raises:
        ActiveDPOError: There is none at the address, or it has other versions of Ray or Python.
        UsageError: It has fewer GPUs than one worker is to have.

    """
    os.environ.update({name: os.environ.get(name, value) for name, value in SILENT.items()})
    import ray

    if not ray.is_initialized():
        _connect(options)
    present = float(ray.cluster_resources().get("GPU", 0))
    wanted = options.gpus if options.gpus is not None else float(present >= 1)
    if wanted > present:
        raise UsageError(
            f"--gpus-per-worker is {wanted:g}, and the cluster has {present:g} GPUs",
            hint=f"--gpus-per-worker {int(present)}",
        )
    return wanted


def _connect(options: RayOptions) -> None:
    import ray

    here: dict[str, Any] = {} if options.address else {"num_cpus": max(options.workers, os.cpu_count() or 1)}
    if not options.address:
        here |= {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    try:
        ray.init(options.address or "local", log_to_driver=False, logging_level=logging.ERROR, **here)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise ActiveDPOError(
            f"there is no Ray cluster to work with at `{options.address or 'this machine'}`",
            details=str(error).strip().splitlines()[:3],
            hint="`ray status` there says whether it runs; leave --ray-address out to work on this machine alone",
        ) from error
