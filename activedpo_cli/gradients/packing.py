"""Which responses share a batch: lengths that are alike, under a budget of tokens with padding."""

from collections.abc import Sequence


def packed(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Indices in batches, longest first, each of at most `tokens_per_batch` tokens when padded to its longest.

    One that is longer than the budget gets a batch to itself. Equal lengths keep their order, so equal arguments give
    equal batches; the first batch needs the most memory, so what will not fit fails at once.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        size = max(1, tokens_per_batch // max(1, lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches
