"""The pairs of one stage as a queue for people: who is asked what next, and what becomes of an answer.

Nothing here reads a file, a key or a clock of its own, so that a terminal and a page in a browser can stand on the same
queue. A pair that is handed out is leased to one annotator for a time; the ticket says which pair, which side is which, and
until when. Nobody is asked the same twice, save what is repeated on purpose, and nobody is told why they are asked. Answers
that come late, twice, or from before a restart are told apart by what stands: whoever answers first decides what is trained
on, and what others say of the same pair is kept to measure by.
"""

import statistics
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from activedpo_cli.base.errors import RefusedError, UsageError
from activedpo_cli.base.records import Asked, Label, Outcome, Response
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.label.questions import Question
from activedpo_cli.label.standing import Standing
from activedpo_cli.oracles.base import Comparison

LEASE_SECONDS = 900.0
"""How long a pair is kept for one person by default: long enough to read two long responses after a telephone call."""

Choice = Literal["first", "second", "tie", "both_bad", "skip"]


REPEAT_AFTER = 10
"""How many other pairs a person answers before one comes to them for the second time, so that they do not remember it."""


def shown_sides(
    comparison: Comparison, annotator: str, seed: int, *, is_repeat: bool = False
) -> tuple[Response, Response]:
    """The two responses in the order in which `annotator` sees them, so that no position stands for a source.

    The order is decided by pair, person and seed; the second time it is the other one.
    """
    sides = (comparison.response_a, comparison.response_b)
    is_turned = derive_seed(seed, "sides", annotator, comparison.pair_id) % 2 == 1
    return sides[::-1] if is_turned != is_repeat else sides


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A pair that is out with one annotator; `sides` are the responses as shown, times are those of the queue's clock."""

    ticket_id: str
    annotator: str
    comparison: Comparison
    sides: tuple[Response, Response]
    since: float
    until: float
    is_repeat: bool = False

    @property
    def asked(self) -> Asked:
        """What the answer will be to."""
        return Asked(self.comparison.pair_id, self.annotator, self.is_repeat)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a person says about a ticket; `seconds` they took are counted from handing it out where None is given.

    `answer_id` is a name that whoever sends the answer has made for it: under the same name nothing is stored twice. `view`
    is how the texts were looked at, such as `markdown`.
    """

    choice: Choice
    note: str | None = None
    seconds: float | None = None
    answer_id: str | None = None
    view: str | None = None


@dataclass(frozen=True)
class Receipt:
    """The label that stands for the pair, and how the answer came.

    `late` is an answer after the lease, or to a ticket of a queue that is gone; it counts like one in time, since nobody
    else had answered. `repeated` is one that was stored before, and was not stored again.
    """

    label: Label
    arrival: Literal["in time", "late", "repeated"]


@dataclass(frozen=True)
class QueueProgress:
    """How far the pairs are; `answered + held + waiting` are all `pairs`.

    A pair that several people are asked about counts as often. Skipped pairs are answered. `held` are those handed out by
    this queue. `seconds_per_answer` is the median, so that a break does not count; None where nobody took a time.

    `given` of `most` is what people are told: all answers, whatever they were asked for, of all that may be asked of those
    who take part. It moves alike with every answer, so that nobody learns which pairs came a second time, or only measure.
    `most` may be more than come, and is `given` once there is nothing left to ask.
    """

    given: int
    most: int
    pairs: int
    answered: int
    held: int
    waiting: int
    outcomes: Mapping[Outcome, int]
    seconds_per_answer: float | None


class PairAnsweredError(RefusedError):
    """The person of a ticket has answered it already, and otherwise; `label` is what stands."""

    def __init__(self, label: Label) -> None:
        who = f" by {label.annotator}" if label.annotator else ""
        super().__init__(
            f"pair `{label.pair_id}` was answered meanwhile{who}",
            hint="what stands can be taken back by whoever gave it, in the sitting in which they did",
        )
        self.label = label


class AnswerStore(Protocol):
    """Where answers are kept, and what other queues over the same pairs have handed out."""

    def exclusively(self) -> AbstractContextManager[None]:
        """While it lasts nobody else hands out a pair or stores an answer; the other functions are called within it."""

    def answers(self) -> Sequence[Label]:
        """Every answer that stands, in the order in which they were given; read outside too."""

    def given_as(self, answer_id: str) -> Label | None:
        """The answer that was ever stored under this name, whether or not it was taken back since."""

    def record(self, label: Label) -> None:
        """Store a label; it is safe when this returns."""

    def retract(self, asked: Asked) -> None:
        """Store that an answer no longer counts."""

    def held_elsewhere(self) -> Collection[Asked]:
        """What other queues have handed out."""

    def hold(self, asked: Collection[Asked]) -> None:
        """Tell other queues what this one has handed out now."""


class Queue:
    """Pairs for people, in order.

    Args:
        questions: All pairs of the stage, in the order in which they are asked.
        store: Where answers go.
        oracle: The value of `label.oracle`, which every label carries.
        seed: The run's seed, which shuffles the sides.
        clock: Counts seconds.
        lease_seconds: How long a pair is kept for who was asked.
        repeats: How many pairs each person is asked for the second time.
        third_decides: Whether a further person is asked where the first two of a pair differ.
        channel: Where people are asked, which every label carries.

    """

    def __init__(
        self,
        questions: Sequence[Question],
        store: AnswerStore,
        *,
        oracle: str,
        seed: int,
        clock: Callable[[], float],
        lease_seconds: float = LEASE_SECONDS,
        repeats: int = 0,
        third_decides: bool = False,
        channel: str | None = None,
    ) -> None:
        self._questions = {question.comparison.pair_id: question for question in questions}
        self._store = store
        self._oracle = oracle
        self._seed = seed
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._repeats = repeats
        self._third_decides = third_decides
        self._channel = channel
        self._leases: dict[Asked, Ticket] = {}  # in the order in which their holders see them
        self._spent: dict[str, Label] = {}  # by ticket, so that a repetition that comes after an undo is known
        self._given: dict[Asked, None] = {}  # what was answered here, the newest last

    def next(self, annotator: str, besides: Collection[str] = ()) -> Ticket | None:
        """The pair that this annotator should see now; None when there is none for them.

        One that they have not answered yet comes again, as a page that is loaded anew needs it, and is counted from now on;
        `besides` names pairs that are on their screen already.
        """
        with self._store.exclusively():
            answers = self._standing()
            self._drop_leases(lambda ticket: self._is_over(ticket, answers))
            own = (asked for asked in self._leases if asked.annotator == annotator and asked.pair_id not in besides)
            asked = next(own, None) or self._free(annotator, besides, answers)
            return None if asked is None else self._lease(asked)

    def answer(self, ticket: Ticket, answer: Answer) -> Receipt:
        """Store what a person says about a pair, once; it is safe on the disk when this returns.

        Raises:
            PairAnsweredError: Another answer by this person stands, or another one was given on this ticket.
            UsageError: The pair is not one of this stage.

        """
        if ticket.comparison.pair_id not in self._questions:
            raise UsageError(f"pair `{ticket.comparison.pair_id}` is not one of those to be labelled")
        with self._store.exclusively():
            answers = self._standing()
            label = self._label(ticket, answer, answers)
            earlier = (
                self._spent.get(ticket.ticket_id)
                or answers.by_asked.get(ticket.asked)
                or (self._store.given_as(answer.answer_id) if answer.answer_id else None)
            )
            if earlier is None:
                self._store.record(label)
                lease = self._leases.get(ticket.asked)
                is_in_time = lease is not None and lease.ticket_id == ticket.ticket_id and self._clock() < lease.until
                self._spent[ticket.ticket_id] = label
                self._given.pop(ticket.asked, None)
                self._given[ticket.asked] = None
                self._drop_leases(lambda other: other.asked == ticket.asked)
                return Receipt(label, "in time" if is_in_time else "late")
        if _says(earlier) != _says(label):
            raise PairAnsweredError(earlier)
        return Receipt(earlier, "repeated")

    def keep(self, annotator: str, asked: Collection[Asked]) -> None:
        """Lease again what this annotator has before them since an earlier queue handed it out, unless it went to others."""
        with self._store.exclusively():
            answers = self._standing()
            self._drop_leases(lambda ticket: self._is_over(ticket, answers))
            for one in asked:
                is_theirs = one.annotator == annotator and one.pair_id in self._questions
                if is_theirs and one not in answers and one not in self._leases and self._is_open(one, answers):
                    self._lease(one)

    def undo(self, annotator: str, answer_id: str | None = None) -> Label | None:
        """Take back the newest answer that this annotator gave through this queue, whose pair they see next.

        None where they have given none here: what a name answered in another sitting may be somebody else's of that name,
        as all are who share an account. With the name of an answer, which only who gave it knows, it is that one, whichever
        queue it came through, and None where it does not stand.
        """
        with self._store.exclusively():
            answers = self._standing()
            self._drop_leases(lambda ticket: self._is_over(ticket, answers))
            given = self._given if answer_id is None else answers.named(answer_id)
            own = [asked for asked in given if asked.annotator == annotator and asked in answers]
            if not own:
                return None
            asked = own[-1]
            self._store.retract(asked)
            self._given.pop(asked, None)
            label = answers.by_asked[asked]
            if self._is_open(asked, self._standing(besides=asked)):
                self._lease(asked)
                self._leases = {asked: self._leases.pop(asked), **self._leases}
            return label

    def leave(self, annotator: str) -> None:
        """Give back what is out with an annotator who goes away."""
        with self._store.exclusively():
            self._drop_leases(lambda ticket: ticket.annotator == annotator)

    def tidy(self) -> None:
        """Give back what has been out for too long, or is answered by others; raises what the store raises of the stage."""
        with self._store.exclusively():
            answers = self._standing()
            self._drop_leases(lambda ticket: self._is_over(ticket, answers))

    def progress(self, annotator: str | None = None) -> QueueProgress:
        """How far the pairs are, by whoever answered them; `most` as this annotator is told it."""
        answers = self._standing()
        wanted = {pair_id: answers.wanted(self._questions[pair_id]) for pair_id in self._questions}
        answered = {pair_id: min(len(answers.of_pair(pair_id)), number) for pair_id, number in wanted.items()}
        out = Counter(
            asked.pair_id
            for asked, ticket in self._leases.items()
            if not asked.is_repeat and asked not in answers and ticket.until > self._clock()
        )
        held = sum(min(number, wanted[pair_id] - answered[pair_id]) for pair_id, number in out.items())
        labels = list(answers.by_asked.values())
        times = [label.seconds for label in labels if label.seconds is not None and not label.taken_from]
        return QueueProgress(
            given=len(labels),
            most=len(labels) + self._most_to_come(annotator, answers),
            pairs=sum(wanted.values()),
            answered=sum(answered.values()),
            held=held,
            waiting=sum(wanted.values()) - sum(answered.values()) - held,
            outcomes=Counter(label.outcome for label in labels),
            seconds_per_answer=statistics.median(times) if times else None,
        )

    def is_all_answered(self, annotator: str | None = None) -> bool:
        """Whether nothing is missing, before nobody is a question, and none is left for this annotator alone."""
        return self._is_all_answered(annotator, self._standing())

    def _is_all_answered(self, annotator: str | None, answers: Standing) -> bool:
        is_missing = any(answers.missing(question) for question in self._questions.values())
        if is_missing or any(not self._is_over(ticket, answers) for ticket in self._leases.values()):
            return False
        return annotator is None or not (
            self._due(annotator, answers)
            or any(
                question.is_for_everybody and Asked(pair_id, annotator) not in answers
                for pair_id, question in self._questions.items()
            )
        )

    def _most_to_come(self, annotator: str | None, answers: Standing) -> int:
        """How many answers may come: those that are missing, and what each of those who take part is asked as well."""
        if self._is_all_answered(annotator, answers):
            return 0
        people = {label.annotator for label in answers.by_asked.values() if not label.taken_from}
        people = (people | {asked.annotator for asked in self._leases} | {annotator}) - {None}
        again = Counter(asked.annotator for asked in answers.by_asked if asked.is_repeat)
        number = len(self._questions) - REPEAT_AFTER  # after so many answers the last repetition has come
        most_again = min(self._repeats, (number - 1) // self._repeat_every() + 1) if number > 0 else 0
        to_come = sum(max(0, most_again - again[name]) for name in people)
        for pair_id, question in self._questions.items():
            missing = answers.missing(question)
            own = sum(Asked(pair_id, name) not in answers for name in people) if question.is_for_everybody else 0
            to_come += max(missing, own)
        return to_come

    def _repeat_every(self) -> int:
        """How many other answers lie between two repetitions that one person is asked."""
        return max(1, (len(self._questions) - REPEAT_AFTER) // max(1, self._repeats))

    def _standing(self, besides: Asked | None = None) -> Standing:
        known = (label for label in self._store.answers() if label.pair_id in self._questions)
        return Standing((label for label in known if label.asked != besides), third_decides=self._third_decides)

    def _is_over(self, ticket: Ticket, answers: Standing) -> bool:
        """Whether a pair need not be kept for somebody: they, or enough others, have answered, or their time is over."""
        question = self._questions[ticket.comparison.pair_id]
        is_answered = not (ticket.is_repeat or question.is_for_everybody or answers.missing(question))
        return ticket.asked in answers or is_answered or ticket.until <= self._clock()

    def _is_open(self, asked: Asked, answers: Standing) -> bool:
        """Whether a person can be asked, since neither they nor enough others have the pair before them or have answered."""
        out = {*self._leases, *self._store.held_elsewhere()}
        if asked.is_repeat or asked in out:
            return asked not in out
        question = self._questions[asked.pair_id]
        others = sum(other.pair_id == asked.pair_id and not other.is_repeat for other in out)
        return question.is_for_everybody or others < answers.missing(question)

    def _free(self, annotator: str, besides: Collection[str], answers: Standing) -> Asked | None:
        """What to ask this person now: a repetition that is due, else a pair that nobody has, else a second opinion."""
        out = [*self._leases, *self._store.held_elsewhere()]
        if (repeated := self._due(annotator, answers)) and repeated.pair_id not in besides and repeated not in out:
            return repeated
        others = Counter(asked.pair_id for asked in out if not asked.is_repeat)
        own = [*out, *(asked for asked in answers.by_asked if not asked.is_repeat)]
        seen = {asked.pair_id for asked in own if asked.annotator == annotator} | set(besides)
        if gold := self._gold_due(annotator, answers, seen):
            return gold
        short = []
        for pair_id, question in self._questions.items():
            missing = answers.missing(question) - others[pair_id]
            if pair_id not in seen and (missing > 0 or question.is_for_everybody):
                if not answers.of_pair(pair_id) and not others[pair_id]:
                    return Asked(pair_id, annotator)
                short.append(pair_id)
        return Asked(short[0], annotator) if short else None

    def _gold_due(self, annotator: str, answers: Standing, seen: Collection[str]) -> Asked | None:
        """A gold pair that others have answered and this person has not; spread over what they answer."""
        gold = [pair_id for pair_id, question in self._questions.items() if question.is_for_everybody]
        own = [asked for asked in answers.by_asked if asked.annotator == annotator and not asked.is_repeat]
        known = sum(asked.pair_id in gold for asked in own)
        every = max(3, len(self._questions) // (2 * len(gold) + 1))
        left = [pair_id for pair_id in gold if pair_id not in seen and answers.of_pair(pair_id)]
        return Asked(left[0], annotator) if left and len(own) >= every * (known + 1) else None

    def _due(self, annotator: str, answers: Standing) -> Asked | None:
        """The pair that comes to this person again now: they are spread over what they answer, the oldest first."""
        own = [label for label in answers.by_asked.values() if label.annotator == annotator]
        first = [label.pair_id for label in own if label.role != "repeat" and label.pair_id in self._questions]
        again = {label.pair_id for label in own if label.role == "repeat"}
        if not self._repeats or len(again) >= self._repeats:
            return None
        if len(first) < REPEAT_AFTER + self._repeat_every() * len(again) + 1:
            return None
        old = [pair_id for pair_id in first[: len(first) - REPEAT_AFTER] if pair_id not in again]
        return Asked(old[0], annotator, True) if old else None

    def _lease(self, asked: Asked) -> Ticket:
        comparison, now = self._questions[asked.pair_id].comparison, self._clock()
        lease, annotator = self._leases.get(asked), str(asked.annotator)
        ticket = Ticket(
            ticket_id=lease.ticket_id if lease else uuid.uuid4().hex,
            annotator=annotator,
            comparison=comparison,
            sides=shown_sides(comparison, annotator, self._seed, is_repeat=asked.is_repeat),
            since=now,
            until=now + self._lease_seconds,
            is_repeat=asked.is_repeat,
        )
        self._leases[asked] = ticket
        self._store.hold(self._leases.keys())
        return ticket

    def _drop_leases(self, is_over: Callable[[Ticket], bool]) -> None:
        kept = {asked: ticket for asked, ticket in self._leases.items() if not is_over(ticket)}
        if kept.keys() != self._leases.keys():
            self._leases = kept
            self._store.hold(kept.keys())

    def _label(self, ticket: Ticket, answer: Answer, answers: Standing) -> Label:
        """The label that an answer amounts to; which response is meant is worked out anew, whoever made the ticket."""
        question = self._questions[ticket.comparison.pair_id]
        comparison = question.comparison
        shown = shown_sides(comparison, ticket.annotator, self._seed, is_repeat=ticket.is_repeat)
        preferred = dict(zip(("first", "second"), shown, strict=True)).get(answer.choice)
        outcomes: dict[Choice, Outcome] = {"tie": "tie", "both_bad": "both_bad", "skip": "skip"}
        seconds = self._clock() - ticket.since if answer.seconds is None else answer.seconds
        return Label(
            pair_id=comparison.pair_id,
            outcome=outcomes.get(answer.choice, "chosen"),
            preferred_id=preferred.response_id if preferred else None,
            oracle=self._oracle,
            annotator=ticket.annotator,
            seconds=round(max(seconds, 0.0), 3),
            note=answer.note,
            texts=comparison.texts,
            role="repeat" if ticket.is_repeat else question.role_of_answer(bool(answers.of_pair(comparison.pair_id))),
            known_id=question.known_id,
            first_id=shown[0].response_id,
            answer_id=answer.answer_id,
            view=answer.view,
            channel=self._channel,
        )


def _says(label: Label) -> tuple[str | None, Outcome, str | None]:
    return label.annotator, label.outcome, label.preferred_id
