"""The answers that stand at a moment: what of a stage's questions is answered, by whom, and what is missing."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from activedpo_cli.base.records import Asked, Label
from activedpo_cli.label.questions import Question


class Standing:
    """Answers by what they are answers to, and by pair.

    Args:
        labels: The answers, in the order in which they were given.
        third_decides: Whether a third person is asked about a pair of which the first two say different things.

    """

    def __init__(self, labels: Iterable[Label], *, third_decides: bool = False) -> None:
        self._third_decides = third_decides
        self.by_asked = {label.asked: label for label in labels}
        self._by_pair: dict[str, list[Label]] = {}
        for label in self.by_asked.values():
            if label.role != "repeat":
                self._by_pair.setdefault(label.pair_id, []).append(label)

    def __contains__(self, asked: Asked) -> bool:
        return asked in self.by_asked

    def named(self, answer_id: str) -> list[Asked]:
        """What the answer of this name answers; nothing where none stands."""
        return [asked for asked, label in self.by_asked.items() if label.answer_id == answer_id]

    def of_pair(self, pair_id: str) -> list[Label]:
        """What people said of a pair, each once, whoever was first at the head."""
        return self._by_pair.get(pair_id, [])

    def wanted(self, question: Question) -> int:
        """How many people are to answer a question; a third one where the first two differ about what may train."""
        if not self._third_decides or question.role != "selected" or question.people != 2:
            return question.people
        first = self.of_pair(question.comparison.pair_id)[:2]
        said = {(label.outcome, label.preferred_id) for label in first if label.outcome != "skip"}
        return 3 if len(said) == 2 else 2

    def missing(self, question: Question) -> int:
        """How many answers to a question are still to come."""
        return max(0, self.wanted(question) - len(self.of_pair(question.comparison.pair_id)))


def missing_answers(asked: Sequence[Question], labels: Iterable[Label], *, third_decides: bool) -> int:
    """How many answers a stage still waits for; repetitions, which come as it goes, are not waited for."""
    standing = Standing(labels, third_decides=third_decides)
    return sum(standing.missing(question) for question in asked)


def measuring_counts(labels: Iterable[Label]) -> dict[str, Any]:
    """How many answers were given to measure by, for a summary; nothing where there are none."""
    counts = Counter(label.role for label in labels)
    found = {role: counts[role] for role in ("overlap", "control", "gold", "repeat") if counts[role]}
    return {"measuring": found} if found else {}
