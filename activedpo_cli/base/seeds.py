"""`derive_seed`: the seed of one piece of work, a hash of the run's seed and of what is computed, never of when."""

import hashlib


def derive_seed(run_seed: int, *parts: str | int) -> int:
    """The seed of one piece of work, such as `derive_seed(0, "generate", iteration, unit)`.

    Equal arguments give equal seeds on every machine, so that a unit made again after an interruption, or by another
    process, is the same unit. The result lies in [0, 2**63).
    """
    text = "/".join(str(part) for part in (run_seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
