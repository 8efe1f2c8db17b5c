from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.base.records import pair_id, response_id, sides_of
from activedpo_cli.pairs.pairing import all_pairs, times_sampled, usable_indices


def test_empty_and_repeated_responses_never_form_a_pair() -> None:
    texts = ["a", " \n\t", "b", "a", "", "a "]
    assert usable_indices(texts, [False] * 6, drop_truncated=False) == [0, 2, 5]


def test_truncated_responses_are_kept_or_dropped() -> None:
    assert usable_indices(["a", "b", "c"], [False, True, False], drop_truncated=False) == [0, 1, 2]
    assert usable_indices(["a", "b", "c"], [False, True, False], drop_truncated=True) == [0, 2]


def test_a_dropped_truncated_response_does_not_hide_its_finished_copy() -> None:
    assert usable_indices(["a", "a"], [True, False], drop_truncated=True) == [1]


def test_copies_are_counted_where_they_could_stand_for_each_other() -> None:
    texts, truncated = ["a", "", "b", "a", "a"], [False, False, False, True, False]
    assert times_sampled(texts, truncated, drop_truncated=False) == [3, 1]
    assert times_sampled(texts, truncated, drop_truncated=True) == [2, 1]


def test_unequal_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        usable_indices(["a"], [], drop_truncated=False)


def test_three_responses_make_three_pairs_in_order() -> None:
    assert all_pairs([0, 2, 5]) == [(0, 2), (0, 5), (2, 5)]


@given(st.lists(st.sampled_from(["", " ", "x", "y", "z"]), max_size=8), st.data())
def test_every_pair_holds_two_distinct_visible_texts(texts: list[str], data: st.DataObject) -> None:
    truncated = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    indices = usable_indices(texts, truncated, drop_truncated=True)
    pairs = all_pairs(indices)
    assert len(pairs) == comb(len(indices), 2)
    assert {texts[i] for i in indices} == {t for t, cut in zip(texts, truncated, strict=True) if t.strip() and not cut}
    assert all(texts[i] != texts[j] and i < j for i, j in pairs)


@pytest.mark.parametrize("iteration", [3, None])
def test_a_pair_id_is_taken_apart_into_the_ids_it_was_made_of(iteration: int | None) -> None:
    first, second = (response_id("p000123", iteration, index) for index in (0, 12))
    assert sides_of(pair_id(first, second)) == (first, second)
