"""Runs an engine, and ends it with all that it has started once the process that asked for it ends, however that ends.

Its source is run by `python -c`, in a session of its own, so that Ctrl-C and signals to the group of that process pass by;
what it starts stays in its group. Standard input is a pipe that closes with that process, also by SIGKILL. A fork of it
may hold the pipe open, so the number of the parent is looked at too. Needs the standard library alone.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

ENDED = "the engine has ended with code"
"""How the last line of the log begins where nobody asked the engine to end."""
LOOK_SECONDS = 0.2
STDIN = 0


def main(parent: str, folder: str, patience: str, *command: str) -> None:
    """Run a command in a folder, which is taken away unless the parent is to read there, and kill the group at last."""
    signal.signal(signal.SIGTERM, _pass_over)
    is_to_be_read = False
    try:
        engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=folder)
    except OSError as error:
        print(f"{error}\n{ENDED} 127", flush=True)
        is_to_be_read = True
    else:
        while engine.poll() is None and _is_wanted(int(parent)):
            pass
        if engine.returncode is None:
            _end(engine, float(patience))
        else:
            print(f"\n{ENDED} {engine.returncode}", flush=True)
            is_to_be_read = True
    if not is_to_be_read or os.getppid() != int(parent):
        shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def _pass_over(*_: object) -> None:
    """Whoever ends all processes of a job ends the engine too; this one sees to it that nothing of it is left."""


def _is_wanted(parent: int) -> bool:
    """Wait for a moment, and say whether the process that asked for the engine is there and has not closed the pipe."""
    readable, _, _ = select.select([STDIN], [], [], LOOK_SECONDS)
    return not readable and os.getppid() == parent


def _end(engine: "subprocess.Popen[bytes]", patience: float) -> None:
    """Let all of it end in good order for a while, so that nothing is left in shared memory.

    The one that was started waits, when it alone is asked, for what the others are at.
    """
    os.killpg(0, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        engine.wait(patience)


if __name__ == "__main__":
    main(*sys.argv[1:])
