"""Seconds of pieces of work that are to be compared: in turns, so that a machine's ups and downs hit all alike."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

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
