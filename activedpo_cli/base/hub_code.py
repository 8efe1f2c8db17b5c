"""Keep libraries from fetching code from the hub and running it: what commands do, and an import from Python does not."""

import logging
import sys


def fetch_no_code() -> None:
    """Hide the package `kernels` from this process, unless somebody has loaded it; comes before PEFT is imported.

    By it bitsandbytes, which PEFT loads wherever it is installed, and transformers would fetch kernels from the hub.
    """
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # as it is loaded, it names the kernel that it lacks
