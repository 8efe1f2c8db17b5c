"""The pairs that were answered twice, up to an iteration, from which the share of wrong answers is estimated."""

import hashlib
import json
from dataclasses import dataclass

from activedpo_cli.base.looking_once import once
from activedpo_cli.label.agreement import first_two, ratings
from activedpo_cli.store.run import Run


@dataclass(frozen=True)
class AnsweredTwice:
    """Selected pairs with two answers: iteration, pair, and what the first and the second said: a, b, tie or both_bad."""

    answers: tuple[tuple[int, str, str, str], ...]

    @property
    def decided(self) -> list[tuple[str, str]]:
        """What both said, where both named a response: a tie is neither right nor wrong."""
        return [(one, other) for _, _, one, other in self.answers if {one, other} <= {"a", "b"}]

    @property
    def differing(self) -> int:
        """Of these, how many pairs the two answers of which differ."""
        return sum(one != other for one, other in self.decided)

    @property
    def left_out(self) -> int:
        """The pairs of which an answer names no response."""
        return len(self.answers) - len(self.decided)

    @property
    def digest(self) -> str:
        """By which later work knows whether it is the same answers; without times and names."""
        return "sha256:" + hashlib.sha256(json.dumps(self.answers).encode()).hexdigest()


def answered_twice(run: Run, iteration: int) -> AnsweredTwice:
    """The pairs that were answered twice in the iterations up to this one; raises InvalidDataError for a damaged log."""
    return once(("answered twice", run.path, iteration), lambda: _answered_twice(run, iteration))


def _answered_twice(run: Run, iteration: int) -> AnsweredTwice:
    found = [one for one in ratings(run, iteration) if one.role in ("selected", "overlap")]
    twice = [(one.iteration, one.pair_id, str(one.said), str(other.said)) for one, other in first_two(found)]
    return AnsweredTwice(tuple(sorted(twice)))
