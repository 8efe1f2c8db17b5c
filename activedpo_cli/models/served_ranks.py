"""The ranks of LoRA adapters for which vLLM has room: it is told a limit, and takes some numbers alone for that."""

LIMITS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for `--max-lora-rank` (`vllm/config/lora.py`)."""


def served_limit(rank: int) -> int | None:
    """The smallest limit with room for a rank, which needs the least memory; None where there is none."""
    return next((limit for limit in LIMITS if limit >= rank), None)
