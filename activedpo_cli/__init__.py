"""Choose which response pairs are worth a preference label (ActiveDPO, arXiv 2505.19241)."""

import logging
import sys

__version__ = "0.1.0"

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # as PEFT loads it, it names a kernel that is not wanted here
# By this package bitsandbytes, which PEFT loads, and transformers would fetch code from the hub and run it.
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
