"""Company: the processes that do the units of one step together, none of which knows the others.

Each holds a lock file of its own as long as it works, which the kernel frees when it ends, however it ends. They share
nothing but the folder. The step's own lock is lent meanwhile, and taken for the moments in which work is begun or finished.
"""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import BusyError, RefusedError, StorageError
from activedpo_cli.base.launchers import Shard
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.store import files
from activedpo_cli.store.lock import exclusive, waiting

SHORTEST_WAIT, LONGEST_WAIT = 0.05, 2.0
"""Seconds between two looks at what others do."""


@contextmanager
def joined(claims: Path, shard: Shard | None, versions: dict[str, str]) -> Iterator[bool]:
    """Work beside others until it ends; yields whether nobody else was at work. The caller holds the step's lock.

    A process alone keeps that lock, and leaves no trace here.

    Raises:
        RefusedError: Somebody works there with other versions of packages, whose results may differ.

    """
    if shard is None:
        yield True
        return
    others = list(_at_work(claims))
    for other in others:
        _refuse_other_versions(other, versions)
    with ExitStack() as place:
        for number in count(1):
            path = _places(claims) / f"{number}.lock"
            with suppress(BusyError):
                place.enter_context(exclusive(path, str(claims)))
                break
        facts = path.with_suffix(".worker")
        files.write_new(facts, json.dumps({"shard": str(shard), "versions": versions}).encode())
        try:
            yield not others
        finally:
            with suppress(StorageError):  # left over, it counts for nothing
                files.remove(facts)


def refuse_while_shared(claims: Path, what: str) -> None:
    """Raise BusyError while several processes share the work; the caller holds the step's lock, so none can join."""
    others = list(_at_work(claims))
    if others:
        number = len(others)
        raise BusyError(
            f"{number} process{'es' if number > 1 else ''} share{'' if number > 1 else 's'} the work on `{what}`",
            hint="wait until they end, or join them with --shard I/N",
        )


def waits() -> Iterator[None]:
    """Wait between two looks at what others do, each time a little longer."""
    seconds = SHORTEST_WAIT
    while True:
        time.sleep(seconds)
        seconds = min(2 * seconds, LONGEST_WAIT)
        yield


def _at_work(claims: Path) -> Iterator[dict[str, Any]]:
    """What each process that is at work has written down about itself; empty where it could not be read."""
    for path in sorted(_places(claims).glob("*.lock")):
        try:
            with waiting(path, seconds=0):
                pass
        except BusyError:
            try:
                yield json.loads(read_limited(path.with_suffix(".worker")))
            except (OSError, ValueError):
                yield {}


def _refuse_other_versions(other: dict[str, Any], versions: dict[str, str]) -> None:
    theirs = other.get("versions", versions)
    names = [name for name in versions if theirs.get(name) != versions[name]]
    if names:
        raise RefusedError(
            "the processes that share this work have other versions of packages than this one",
            details=[f"{name}  there {theirs.get(name)}, here {versions[name]}" for name in names],
            hint="give all of them one environment: the same weights give other numbers under other versions",
        )


def _places(claims: Path) -> Path:
    return claims / "workers"
