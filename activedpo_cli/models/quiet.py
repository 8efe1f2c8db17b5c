"""Keep libraries from printing: results go to stdout, and messages pass through `Progress`."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from transformers.utils import logging as transformers_logging


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Swallow prints to stdout, warnings, log lines up to WARNING and progress bars of libraries called inside."""
    bars, disabled = transformers_logging.is_progress_bar_enabled(), logging.root.manager.disable
    is_loud = disabled < logging.WARNING
    transformers_logging.disable_progress_bar()
    if is_loud:  # each change goes through all loggers there are, thousands with these libraries
        logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        if is_loud:
            logging.disable(disabled)
        if bars:
            transformers_logging.enable_progress_bar()
