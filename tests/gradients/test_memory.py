from collections.abc import Sequence

import pytest
import torch

from activedpo_cli.base.out_of_memory import is_out_of_memory
from activedpo_cli.gradients.memory import TooLargeError, in_halves


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 9])
def test_results_come_in_order_whatever_fits(limit: int) -> None:
    tried: list[int] = []

    def work(rows: Sequence[int]) -> list[int]:
        tried.append(len(rows))
        if len(rows) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [row * row for row in rows]

    results = in_halves(work, list(range(9)))
    assert [value for part in results for value in part] == [row * row for row in range(9)]
    assert tried[0] == 9
    assert max(len(part) for part in results) <= limit


def test_one_row_that_does_not_fit_is_named() -> None:
    def work(rows: Sequence[str]) -> None:
        if "large" in rows:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(TooLargeError) as caught:
        in_halves(work, ["a", "b", "large", "c"])
    assert caught.value.row == "large"


def test_other_errors_pass() -> None:
    def work(rows: Sequence[int]) -> None:
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        in_halves(work, [1, 2])


def test_a_real_allocation_that_can_not_succeed_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.float64)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("a mistake"))
