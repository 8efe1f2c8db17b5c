from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.gradients.packing import packed


@given(lengths=st.lists(st.integers(0, 50), max_size=60), budget=st.integers(1, 200))
def test_every_row_once_under_the_budget_and_longest_first(lengths: list[int], budget: int) -> None:
    batches = packed(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[index] for index in batch)
        assert padded <= budget or len(batch) == 1
    order = [lengths[index] for batch in batches for index in batch]
    assert order == sorted(order, reverse=True)


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60), budget=st.integers(1, 200))
def test_no_batch_could_take_the_next_row_too(lengths: list[int], budget: int) -> None:
    batches = packed(lengths, budget)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * lengths[batch[0]] > budget


def test_equal_lengths_keep_their_order() -> None:
    assert packed([3, 3, 3, 3, 3], 6) == [[0, 1], [2, 3], [4]]
    assert packed([1, 9, 1, 9], 18) == [[1, 3], [0, 2]]
    assert packed([], 5) == []
