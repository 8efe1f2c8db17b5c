"""How many threads torch computes with, and how they wait for each other: set before torch is imported.

A CPU result is the same bit for bit for one number of threads only. So the number follows from the model and from the cores
that this process may use, never from how busy they are, and a stage that is continued keeps the number that it began with.
Torch's wheels come with GNU's OpenMP runtime, whose threads spin for milliseconds at every wait: beside other work they take
the very cores that the thread they wait for needs. Variables of the environment that somebody has set are left as they are.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

SMALL_WEIGHTS_BYTES = 2**20
"""A model whose weights are no larger is run by one thread: a second hardly gains on idle cores, and costs on busy ones."""
NUMBERS = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")
"""What sets the number for torch; the first one that is set counts, as in torch."""
WAITS = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""How long a thread spins before it sleeps: turns in GNU's runtime (0.03 ms), milliseconds in LLVM's and Intel's."""
WAIT_POLICY = "OMP_WAIT_POLICY"
OURS = "ACTIVEDPO_SETS"
"""Names the variables that this program has set, so that processes that it starts do not take them for the user's."""
WORKERS = "ACTIVEDPO_WORKERS"
"""How many processes of one experiment share the cores."""
CORES = "cores"


@dataclass(frozen=True)
class Threads:
    """How many threads a piece of work computes with.

    `number` is what it works with, its policy included; `most` is what a model of any size gets, a scorer for instance.
    `decided_by` is `cores`, or the variable of the environment that somebody has set, which holds for small models too.
    """

    number: int
    most: int
    decided_by: str

    def suited_to(self, weights_bytes: int | None) -> int:
        """The number for a model whose weights take so many bytes, None where that is not known or there is no model."""
        is_small = weights_bytes is not None and weights_bytes <= SMALL_WEIGHTS_BYTES
        return 1 if is_small and self.decided_by == CORES else self.most


_stage: ContextVar[Threads | None] = ContextVar("threads of the stage at work", default=None)


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what nobody has set; comes before torch is imported, since OpenMP reads its variables when it is loaded."""
    threads = own_threads(environment)
    wanted = {"OMP_NUM_THREADS": str(threads.most)} if threads.decided_by == CORES else {}
    wanted |= {} if WAIT_POLICY in environment else WAITS
    ours = [name for name in wanted if not _is_given(name, environment)]
    environment.update({name: wanted[name] for name in ours} | {OURS: ",".join(ours)})


def own_threads(environment: Mapping[str, str] = os.environ) -> Threads:
    """The number that this process has for work that begins now: the user's, else one for each core that it may use."""
    for name in NUMBERS:
        text = (
            environment.get(name, "").partition(",")[0].strip()
        )  # OpenMP takes a list, of which the first one is meant
        if _is_given(name, environment) and text.isdecimal() and int(text) > 0:
            return Threads(int(text), int(text), name)
    workers = environment.get(WORKERS, "")
    most = max(1, allotted_cores() // (int(workers) if workers.isdecimal() and int(workers) > 0 else 1))
    return Threads(most, most, CORES)


def stage_threads(begun: Mapping[str, Any], weights_bytes: int | None, warn: Callable[[str], None]) -> Threads:
    """The number for a stage whose policy has weights of that size; one that was begun keeps the number it has recorded.

    Where the user has set another number since, that one holds, and `warn` hears that the result may differ by rounding.

    Args:
        begun: The `execution` of the stage's record; empty where it begins now, or was begun by a version without it.

    """
    own = own_threads()
    own = replace(own, number=own.suited_to(weights_bytes))
    try:
        before = Threads(**begun["threads"])
    except (KeyError, TypeError):
        return own
    if (own.number, own.most) == (before.number, before.most):
        return own
    if own.decided_by == CORES:
        return before
    warn(
        f"this was begun with {_counted(before)} and goes on with {_counted(own)}, since {own.decided_by} is set: on a CPU "
        "the result may differ in its last bits from one made without interruption"
    )
    return own


@contextmanager
def working_with(threads: Threads) -> Iterator[None]:
    """Have torch compute with a stage's number of threads, and its scorers with what suits them."""
    token = _stage.set(threads)
    try:
        with _computing_with(threads.number):
            yield
    finally:
        _stage.reset(token)


@contextmanager
def threads_for(weights_bytes: int | None) -> Iterator[None]:
    """Have torch compute with the number that suits one model, None for code whose model is not known."""
    with _computing_with((_stage.get() or own_threads()).suited_to(weights_bytes)):
        yield


@contextmanager
def _computing_with(number: int) -> Iterator[None]:
    if "torch" not in sys.modules and number == own_threads().most:
        yield  # torch takes this number when it is loaded, which may never be: people's answers need none
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def execution_facts(threads: Threads) -> dict[str, Any]:
    """What the record of a stage says about its threads, which `stage_threads` reads."""
    return {"threads": asdict(threads)}


def allotted_cores(root: Path = Path("/")) -> int:
    """How many cores this process may use: those it is bound to, two hardware threads of one counted once, within its quota.

    A quota is that of the control groups (version 1 or 2) that it is in, whole cores of it, at least one.
    """
    bound = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    cores = {_text(root / topology.format(number)) or str(number) for number in bound}
    return max(1, int(min([len(cores), *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """The cores that each control group around this process may use at once, where it is bounded."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1):
            group = mount.joinpath(*parts[:depth])  # not there where a container sees its own group as the topmost one
            if controllers:
                words = [_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")]
            else:
                words = _text(group / "cpu.max").split()
            if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
                yield int(words[0]) / int(words[1])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _is_given(name: str, environment: Mapping[str, str]) -> bool:
    return name in environment and name not in environment.get(OURS, "").split(",")


def _counted(threads: Threads) -> str:
    number = f"{threads.number} thread" + ("s" if threads.number != 1 else "")
    return number if threads.number == threads.most else f"{number} (scorers with up to {threads.most})"
