"""Which of several processes a command is, as it was typed or as a launcher says."""

import os

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.launchers import Shard, be_alone, launched_as, parse_shard, trainers_size


def shard_of(typed: str | None) -> Shard | None:
    """What `--shard` says, else the launcher; None for a process alone. Raises UsageError for what can't be read.

    The launcher's variables are gone afterwards: libraries that train would wait by them for the other processes.
    """
    shard = parse_shard(typed) if typed is not None else launched_as(os.environ)
    be_alone(os.environ)
    return shard if shard is not None and shard.count > 1 else None


def device_of(typed: str, shard: Shard | None) -> str:
    """The device for this process: `auto` gives each of several on a machine the next GPU."""
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
