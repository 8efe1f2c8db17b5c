"""Commands are one process each: a launcher that starts several would have all of them do the same work."""

import os

from activedpo_cli.base.errors import UsageError

SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where torchrun, accelerate and MPI tell a process how many there are, and where training libraries look for it."""
LOOKING = frozenset({"status", "show", "ls", "bench", "verify", "doctor"})
"""Commands that write nothing."""


def refuse_further_processes(command: str | None) -> None:
    """Raise UsageError where this process is one of several that were started as one: none of them may write."""
    for name in SIZES:
        text = os.environ.get(name, "").strip()
        if text.isdigit() and int(text) > 1 and command not in LOOKING:
            raise UsageError(
                f"this is one of {text} processes ({name}={text}), and activedpo works in one",
                details=["on one GPU or the CPU; nothing was written"],
                hint="start it without the launcher, as `activedpo …`; for several runs at once, "
                "`activedpo experiment SPEC --jobs N`, or `unset " + name + "` where no launcher is at work",
            )
