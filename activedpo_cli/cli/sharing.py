"""Which of several processes a command is, as it was typed or as a launcher says."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.launchers import Processes, Shard, be_alone, launched_as, parse_shard, trainers_size

if TYPE_CHECKING:
    from activedpo_cli.cli.options import StageOptions
    from activedpo_cli.engine.runner import StageRunner

EXECUTORS = ("ray",)
DEFAULT_WORKERS = 2


def shard_of(typed: str | None) -> Shard | None:
    """What `--shard` says, else the launcher; None for a process alone. Raises UsageError for what can't be read.

    The launcher's variables are gone afterwards: libraries that train would wait by them for the other processes.
    """
    shard = parse_shard(typed) if typed is not None else launched_as(os.environ)
    be_alone(os.environ)
    return shard if shard is not None and shard.count > 1 else None


def device_of(typed: str, shard: Shard | None) -> str:
    """The device for this process: `auto` gives each of several on a machine the next GPU.

    Raises UsageError where several would each take all GPUs.
    """
    if typed == "balanced" and shard is not None and shard.count > 1:
        raise UsageError(
            "`--device balanced` takes all GPUs of the machine, and this is one of several processes",
            hint="one process alone, or `--device auto`, which gives each a GPU",
        )
    return f"auto:{shard.local}" if typed == "auto" and shard is not None else typed


def speaks(shard: Shard | None) -> bool:
    """Whether this process says what comes out; the others give only warnings and errors."""
    return shard is None or shard.is_first


def refuse_several(command: str | None, typed: str | None = None) -> None:
    """Raise UsageError where this is one of several processes, for a command whose work they can't share."""
    if typed is not None and parse_shard(typed).count > 1:
        raise UsageError(f"--shard {typed}: this work of `{command}` is done in one process", hint="leave --shard out")
    launched = trainers_size(os.environ)
    if launched is not None:
        name, count = launched
        raise UsageError(
            f"this is one of {count} processes ({name}={count}), and `{command}` works in one",
            details=["nothing was written"],
            hint="start it without the launcher, as `activedpo …`, or `unset "
            + name
            + "` where no launcher is at work",
        )


def shard_of_experiment(typed: str | None, jobs: int, executor: str | None) -> Shard | None:
    """Which of several processes an experiment is, None for one that is alone or that starts its own by `--jobs`.

    Raises UsageError where it would be both. A queue's tasks may have nothing to do with each other.
    """
    if jobs == 1:
        return shard_of(typed)
    if executor is not None:
        raise UsageError(
            f"--jobs {jobs} starts processes here, and --executor {executor} has workers elsewhere",
            hint="leave one out; the runs of an experiment are done one after the other by --executor, unit by unit",
        )
    refuse_several("experiment --jobs")
    if typed is not None and parse_shard(typed).count > 1:
        raise UsageError(
            f"--jobs {jobs} starts its own processes, and --shard says which of them this is", hint="leave one out"
        )
    return None


def processes_of(
    number: int | None, config: Path | None, shard: Shard | None = None, executor: str | None = None
) -> Processes | None:
    """Into how many processes training divides its updates; None for one. Raises UsageError for contradictions."""
    if config is not None and (number or 1) == 1:
        raise UsageError("--accelerate-config goes with --num-processes", hint="--num-processes 2, or leave it out")
    if number is None or number == 1:
        return None
    if executor is not None:
        raise UsageError(
            "--executor ray has one worker train, and --num-processes is for processes of this machine",
            hint="leave one out",
        )
    if shard is not None:
        raise UsageError(
            f"this is one of {shard.count} processes, and --num-processes starts its own to train in",
            hint="give --num-processes to a command that is started alone",
        )
    return Processes(number, None if config is None else config.absolute())


def runner_of(options: "StageOptions") -> "StageRunner | None":
    """What does a stage, by the options of its command; None where this process does."""
    return runner_for(options.executor, options.workers, options.gpus_per_worker, options.ray_address, options.shard)


def runner_for(
    executor: str | None, workers: int | None, gpus: float | None, address: str | None, shard: str | None
) -> "StageRunner | None":
    """What does stages elsewhere, None where this process does. Raises UsageError for options that contradict each other."""
    given = {"--workers": workers, "--gpus-per-worker": gpus, "--ray-address": address}
    if executor is None:
        alone = next((name for name, value in given.items() if value is not None), None)
        if alone:
            raise UsageError(f"{alone} goes with --executor ray", hint="add --executor ray, or leave it out")
        return None
    if executor not in EXECUTORS:
        raise UsageError(f"`{executor}` is no executor", hint=f"--executor {' or '.join(EXECUTORS)}")
    if shard is not None:
        raise UsageError(
            "--executor ray starts its own processes, and --shard says which of them this is", hint="leave one out"
        )
    refuse_several("--executor ray")
    from activedpo_cli.run.on_ray import RayOptions, RayStages

    return RayStages(RayOptions(workers or DEFAULT_WORKERS, gpus, address))
