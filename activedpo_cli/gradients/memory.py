"""`in_halves`: does work on a list of rows, in halves as often as memory runs out."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from activedpo_cli.base.out_of_memory import is_out_of_memory

Row = TypeVar("Row")
Result = TypeVar("Result")


class TooLargeError(Exception):
    """Memory does not suffice even for `row` alone."""

    def __init__(self, row: Any) -> None:
        super().__init__(row)
        self.row = row


def in_halves(work: Callable[[Sequence[Row]], Result], rows: Sequence[Row]) -> list[Result]:
    """The results of `work` on `rows`, whole or, as often as memory runs out, on either half; in order.

    Raises TooLargeError where memory does not suffice for a single row.
    """
    try:
        return [work(rows)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(rows) == 1:
            raise TooLargeError(rows[0]) from error
    # This stands after the handler, whose traceback keeps the failed attempt's tensors.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(rows) // 2
    return in_halves(work, rows[:middle]) + in_halves(work, rows[middle:])
