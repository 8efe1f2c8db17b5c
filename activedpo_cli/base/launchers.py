"""What launchers tell a process that is one of several: torchrun, accelerate, MPI and SLURM, by the environment.

No word passes between such processes here. Each takes its number from its launcher, does units that nobody else does, and
needs none of the others to be there.
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from activedpo_cli.base.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """Which of several processes this one is.

    Attributes:
        index: Its number, from 0.
        count: How many there are.
        local: Its number on this machine, by which it takes one of several GPUs.

    """

    index: int
    count: int
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether it speaks for all of them, in what is said once."""
        return self.index == 0

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True)
class Processes:
    """How many processes train together, and accelerate's configuration for them where one was given."""

    number: int
    config: Path | None = None


@dataclass(frozen=True)
class _Variables:
    """The variables of one launcher: how many processes there are, which this one is, and which on this machine."""

    size: str
    index: str
    local: str | None = None
    lowest: str | None = None


TRAINERS = (
    _Variables("WORLD_SIZE", "RANK", "LOCAL_RANK"),
    _Variables("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    _Variables("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),
    _Variables("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK"),
)
"""Launchers of processes that compute one thing together, which training libraries read too."""
QUEUES = (
    _Variables("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    _Variables("SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_ID", lowest="SLURM_ARRAY_TASK_MIN"),
)
"""Launchers of processes that may have nothing to do with each other."""
FURTHER = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
)
"""What torchrun sets beside its numbers."""


def launched_as(environment: Mapping[str, str]) -> Shard | None:
    """Which of several processes this one is, by the first launcher that says so; None where it is alone."""
    for variables in (*TRAINERS, *QUEUES):
        count, index, local, lowest = (
            _number(environment.get(name or "", ""))
            for name in (variables.size, variables.index, variables.local, variables.lowest)
        )
        if count is not None and count > 1 and index is not None:
            return Shard((index - (lowest or 0)) % count, count, local or 0)
    return None


def trainers_size(environment: Mapping[str, str]) -> tuple[str, int] | None:
    """The variable by which a launcher of training says that there are several processes, and how many."""
    for variables in TRAINERS:
        count = _number(environment.get(variables.size, ""))
        if count is not None and count > 1:
            return variables.size, count
    return None


def be_alone(environment: MutableMapping[str, str]) -> None:
    """Take the launchers' variables away: a library that reads them would wait for processes that do not answer."""
    for variables in TRAINERS:
        for name in (variables.size, variables.index, variables.local, *FURTHER):
            environment.pop(name or "", None)


def parse_shard(text: str) -> Shard:
    """`2/8` as it is typed: the third of eight. Raises UsageError for anything else."""
    first, slash, second = text.partition("/")
    index, count = _number(first), _number(second)
    if not slash or index is None or count is None or count < 1:
        raise UsageError(f"--shard is I/N, not `{text}`", hint="--shard 0/4 is the first of four processes")
    if index >= count:
        raise UsageError(
            f"--shard {text}: {count} processes are counted from 0 to {count - 1}", hint=f"--shard {count - 1}/{count}"
        )
    return Shard(index, count)


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() else None
