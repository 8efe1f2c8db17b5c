"""Which of several answers to one pair trains."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from activedpo_cli.base.records import Label

Rule = Literal["first", "majority", "third"]


def settled(labels: Iterable[Label], rule: Rule) -> dict[str, Label]:
    """The answer that counts for each selected pair, by pair id, in the order in which pairs were first answered.

    Under `first` it is that of the person who answered first and did not skip. Under `majority` and `third` it is what most
    people said, where skipping says nothing; where no answer has the most, it is a tie.
    """
    by_pair: dict[str, list[Label]] = {}
    for label in labels:
        if label.may_train:
            by_pair.setdefault(label.pair_id, []).append(label)
    return {pair_id: _first(given) if rule == "first" else _of_most(given) for pair_id, given in by_pair.items()}


def _first(given: Sequence[Label]) -> Label:
    return next((label for label in given if label.outcome != "skip"), given[0])


def _of_most(given: Sequence[Label]) -> Label:
    said = [label for label in given if label.outcome != "skip"]
    if not said:
        return given[0]
    votes = Counter((label.outcome, label.preferred_id) for label in said)
    most = max(votes.values())
    leading = [vote for vote, number in votes.items() if number == most]
    if len(leading) > 1:
        return replace(said[0], outcome="tie", preferred_id=None)
    return next(label for label in said if (label.outcome, label.preferred_id) == leading[0])
