from itertools import combinations
from statistics import fmean

import pytest

from activedpo_cli.select.scores.overlap import chance_share, shared_share


@pytest.mark.parametrize(("first", "second", "candidates"), [(2, 2, 5), (1, 3, 6), (4, 2, 6), (3, 3, 3)])
def test_chance_is_the_mean_over_all_choices(first: int, second: int, candidates: int) -> None:
    """Every possible second choice, counted."""
    names = [str(number) for number in range(candidates)]
    ours = frozenset(names[:first])
    shares = [shared_share(ours, frozenset(theirs)) for theirs in combinations(names, second)]
    assert chance_share(first, second, candidates) == pytest.approx(fmean(shares))


def test_the_share_is_of_the_smaller_choice() -> None:
    assert shared_share({"a", "b"}, {"b", "c", "d", "e"}) == 0.5
    assert shared_share({"a"}, {"a", "b"}) == 1
    assert shared_share({"a"}, {"b"}) == 0


def test_what_can_not_be_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        shared_share(set(), {"a"})
    with pytest.raises(ValueError, match="empty"):
        chance_share(0, 1, 2)
    with pytest.raises(ValueError, match="3 can't be chosen from 2"):
        chance_share(1, 3, 2)
