"""The one place where the libraries' global random state is used."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

NUMPY_SEEDS = 2**32


@contextmanager
def seeded_library_state(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch for library code that takes no generator; put every state back on leaving."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    # Asking a CUDA device that nothing uses yet for its state would initialise it.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed % NUMPY_SEEDS)
        if torch.accelerator.is_available():
            torch.manual_seed(seed)
        else:  # for each accelerator that is not there the other way notes, for good, who wanted it seeded
            torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def seeded_python_state(seed: int) -> Iterator[None]:
    """The same for library code that draws from Python's `random` alone, at a hundredth of the cost."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
