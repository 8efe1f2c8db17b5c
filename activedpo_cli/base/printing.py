"""Where code that is not ours may print: stdout has the results of a command, which programs read."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress


@contextmanager
def printing_to_stderr() -> Iterator[None]:
    """Send what is printed inside to stderr, also by processes that are started inside."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    kept = _turned_to_stderr()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def _turned_to_stderr() -> int | None:
    """Let descriptor 1 be stderr; returns what it was, None where either is closed."""
    try:
        kept = os.dup(1)
    except OSError:
        return None
    try:
        os.dup2(2, 1)
    except OSError:
        os.close(kept)
        return None
    return kept
