"""Recognises errors that mean a shortage of memory, without importing the libraries that raise them."""

MESSAGES = (
    "DefaultCPUAllocator",
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "can't start new thread",
    "Cannot allocate memory",
    "failed to map segment",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    may_be = isinstance(error, (RuntimeError, ImportError, OSError))
    return may_be and any(message in str(error) for message in MESSAGES)
