"""The most memory that tensors took at once during a piece of work, above what they took before it."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_memory(work: Callable[[], object], device: torch.device) -> int:
    """Bytes; CUDA's allocator says so itself, elsewhere live storages are counted.

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
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
