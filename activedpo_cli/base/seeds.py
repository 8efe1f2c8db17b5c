"""Seeds of pieces of work, made from what is computed and never from the order in which it is computed."""

import hashlib


def derive_seed(run_seed: int, *parts: str | int) -> int:
    """The seed of one piece of work, such as `derive_seed(0, "generate", iteration, unit)`.

    Equal arguments give equal seeds on every machine, so that a unit made again after an interruption, or by another
    process, is the same unit. The result lies in [0, 2**63).
    """
    text = "/".join(str(part) for part in (run_seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
