"""Whether a processor is quick in the number format of the weights; many have no instructions for bfloat16."""

import time
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

NARROW = (torch.bfloat16, torch.float16)
WORTH_SAYING = 2.0
"""From how many times as long on somebody is told; less changes no plan."""
SIZE = 256
TURNS = 2


class Advice(NamedTuple):
    """What a run should know of its weights, and what can be done."""

    says: str
    do: str


def advice_on_format(model: PreTrainedModel) -> Advice | None:
    """What to do where a model's weights on a CPU are in a format in which it computes slowly; None where all is well.

    The values of a narrow format are values of float32 too, so that the wider one changes nothing but rounding, memory and
    time. Takes some tenths of a second where the weights are narrow and on a CPU, and no time elsewhere.
    """
    if model.device.type != "cpu" or model.dtype not in NARROW:
        return None
    slower = times_slower(model.dtype)
    if slower < WORTH_SAYING:
        return None
    name = str(model.dtype).removeprefix("torch.")
    return Advice(
        says=f"the weights are in {name}, in which this processor is slow: a product of matrices takes {slower:.0f} times "
        "as long as in float32",
        do="a run of its own with `--set model.dtype=float32` has the same weights, in twice the memory",
    )


def times_slower(dtype: torch.dtype) -> float:
    """How many times as long a product of two matrices takes on the CPU as in float32, each the shortest of some turns."""
    return _shortest(dtype) / _shortest(torch.float32)


def _shortest(dtype: torch.dtype) -> float:
    a, b = (torch.ones(SIZE, SIZE, dtype=dtype) for _ in range(2))
    taken = []
    for _ in range(TURNS + 1):  # the first one also chooses and compiles the kernel
        begun = time.perf_counter()
        torch.mm(a, b)
        taken.append(time.perf_counter() - begun)
    return min(taken)
