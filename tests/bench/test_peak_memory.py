"""The tracker of tensor memory, against allocations counted by hand."""

import torch
from torch import Tensor

from activedpo_cli.bench.measuring import LiveStorages, peak_memory

CPU = torch.device("cpu")
KILO = 250  # float32 numbers in a thousand bytes


def test_what_was_freed_makes_room() -> None:
    def work() -> None:
        a = torch.empty(3 * KILO)
        del a
        b = torch.empty(2 * KILO)
        c = torch.empty(2 * KILO)
        del b
        d = torch.empty(KILO)
        assert len(c) > len(d)

    assert peak_memory(work, CPU) == 4000


def test_what_lies_there_already_counts_for_nothing() -> None:
    weight = torch.zeros(8 * KILO)

    def work() -> list[Tensor]:
        return [
            weight.view(8, KILO),
            weight[:KILO],
            weight.add_(1),
            weight.detach(),
            weight.view(8, KILO).T.contiguous(),
        ]

    assert peak_memory(work, CPU) == 8000, "the copy that `contiguous` makes"


def test_views_live_as_long_as_their_storage() -> None:
    with LiveStorages() as live:
        a = torch.empty(4 * KILO)
        row = a.view(4, KILO)[0]
        assert live.now == 4000
        del a
        assert live.now == 4000
        del row
        assert live.now == 0


def test_a_storage_that_grows_is_counted_as_it_is() -> None:
    with LiveStorages() as live:
        a = torch.empty(KILO)
        a.resize_(3 * KILO)
        assert live.now == 3000
    del a


def test_numbers_from_python_are_counted() -> None:
    numbers = [0.0] * KILO
    assert peak_memory(lambda: torch.tensor(numbers), CPU) == 1000


def test_a_backward_pass_is_seen() -> None:
    """exp keeps its result, and sum's gradient is a view of one number that is multiplied with it."""
    x = torch.zeros(KILO, requires_grad=True)
    assert peak_memory(lambda: torch.autograd.grad(x.exp().sum(), x), CPU) == 1000 + 1000 + 4 + 4


def test_nothing_is_counted_after_the_end() -> None:
    with LiveStorages() as live:
        a = torch.empty(KILO)
    del a
    assert torch.empty(KILO).numel() == KILO
    assert (live.now, live.peak) == (1000, 1000)
