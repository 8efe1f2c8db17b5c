"""Measures seconds and peak memory of several pieces of work, so that they can be compared.

Times are taken in turns, so that a machine's ups and downs hit all alike; memory is the most that tensors took at once.
"""

import gc
import time
import weakref
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Work = Callable[[], object]


def seconds(work: Work, device: torch.device) -> float:
    """How long `work` takes, until the device has finished too."""
    _wait_for(device)
    began = time.perf_counter()
    work()
    _wait_for(device)
    return time.perf_counter() - began


def seconds_in_turns(
    works: Mapping[str, Work], repeats: int, device: torch.device, after_each: Callable[[], None]
) -> dict[str, list[float]]:
    """Seconds of each repetition; one of each comes before, uncounted. `after_each` is called after every piece."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for repetition in range(repeats + 1):
        for name, work in works.items():
            taken = seconds(work, device)
            if repetition:
                found[name].append(taken)
            after_each()
    return found


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    """The median of the ratios of each repetition."""
    return median(a / b for a, b in zip(numerators, denominators, strict=True))


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(work: Callable[[], object], device: torch.device) -> int:
    """Bytes of tensors above what they took before; CUDA's allocator says so itself, elsewhere live storages are counted.

    Neither sees what a kernel takes and gives back inside one operation outside the allocator.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with LiveStorages() as live:
        work()
    return live.peak


class LiveStorages(TorchDispatchMode):
    """While open, follows every storage that an operation makes until it is freed; slow, and the same on each run.

    A storage that came with an operation's arguments is not new: views and results written in place cost nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}
        self._endings: dict[int, weakref.finalize] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and look at what came out."""
        known = {storage._cdata for storage in _storages((args, kwargs))}
        if func is torch.ops.aten.lift_fresh.default:  # how a tensor made from Python numbers first shows itself
            known = set()
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata in self._sizes or storage._cdata not in known:
                self._see(storage)
        self.peak = max(self.peak, self.now)
        return result

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        for ending in self._endings.values():
            ending.detach()

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._sizes:
            self._endings[key] = weakref.finalize(storage, self._forget, key)
        self.now += size - self._sizes.get(key, 0)
        self._sizes[key] = size

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)
        del self._endings[key]


def _storages(values: Any) -> list[torch.UntypedStorage]:
    """Those of all tensors among an operation's arguments or results; torch's own walk through them takes much longer."""
    found, left = [], [values]
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            found.append(value.untyped_storage())
        elif isinstance(value, tuple | list):
            left.extend(value)
        elif isinstance(value, dict):
            left.extend(value.values())
    return found
