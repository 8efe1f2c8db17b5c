"""The pairs of one stage as a queue for people: who is asked what next, and what becomes of an answer.

Nothing here reads a file, a key or a clock of its own, so that a terminal and a page in a browser can stand on the same
queue. A pair that is handed out is leased to one annotator for a time and to nobody else; the ticket says which pair, which
side is which, and until when. Answers that come late, twice, or from before a restart are told apart by what stands for
their pair: whoever answers first counts, and nothing is ever answered twice.
"""

import statistics
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from activedpo_cli.base.errors import RefusedError, UsageError
from activedpo_cli.base.records import Label, Outcome, Response
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.oracles.base import Comparison

LEASE_SECONDS = 900.0
"""How long a pair is kept for one person by default: long enough to read two long responses after a telephone call."""

Choice = Literal["first", "second", "tie", "both_bad", "skip"]


def shown_sides(comparison: Comparison, annotator: str, seed: int) -> tuple[Response, Response]:
    """The two responses in the order in which `annotator` sees them, so that no position stands for a source.

    The order is decided by pair, person and seed.
    """
    sides = (comparison.response_a, comparison.response_b)
    return sides if derive_seed(seed, "sides", annotator, comparison.pair_id) % 2 == 0 else sides[::-1]


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A pair that is out with one annotator; `sides` are the responses as shown, times are those of the queue's clock."""

    ticket_id: str
    annotator: str
    comparison: Comparison
    sides: tuple[Response, Response]
    since: float
    until: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a person says about a ticket; `seconds` they took are counted from handing it out where None is given."""

    choice: Choice
    note: str | None = None
    seconds: float | None = None


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

    Skipped pairs are answered. `held` are those handed out by this queue. `seconds_per_answer` is the median, so that a
    break does not count; None where nobody took a time.
    """

    pairs: int
    answered: int
    held: int
    waiting: int
    outcomes: Mapping[Outcome, int]
    seconds_per_answer: float | None


class PairAnsweredError(RefusedError):
    """The pair of a ticket has an answer already, which is not this one; `label` is what stands."""

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

    def standing(self) -> Mapping[str, Label]:
        """The label that counts for each pair, in the order in which they were given; read outside too."""

    def record(self, label: Label) -> None:
        """Store a label; it is safe when this returns."""

    def retract(self, pair_id: str) -> None:
        """Store that a pair's label no longer counts."""

    def held_elsewhere(self) -> Collection[str]:
        """Pairs that other queues have handed out."""

    def hold(self, pair_ids: Collection[str]) -> None:
        """Tell other queues which pairs this one has handed out now."""


class Queue:
    """Pairs for people, in order.

    Args:
        comparisons: All pairs of the stage.
        store: Where answers go.
        oracle: The value of `label.oracle`, which every label carries.
        seed: The run's seed, which shuffles the sides.
        clock: Counts seconds.
        lease_seconds: How long a pair is kept for who was asked; an answer after that counts if nobody was faster.

    """

    def __init__(
        self,
        comparisons: Sequence[Comparison],
        store: AnswerStore,
        *,
        oracle: str,
        seed: int,
        clock: Callable[[], float],
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._comparisons = {comparison.pair_id: comparison for comparison in comparisons}
        self._store = store
        self._oracle = oracle
        self._seed = seed
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._leases: dict[str, Ticket] = {}  # by pair, in the order in which their holders see them
        self._spent: dict[str, Label] = {}  # by ticket, so that a repetition that comes after an undo is known
        self._given: dict[str, str] = {}  # pair and annotator of what was answered here, the newest last

    def next(self, annotator: str, besides: Collection[str] = ()) -> Ticket | None:
        """The pair that this annotator should see now; None when there is none for them.

        One that they have not answered yet comes again, as a page that is loaded anew needs it, and is counted from now on;
        `besides` names pairs that are on their screen already.
        """
        with self._store.exclusively():
            standing = self._store.standing()
            self._drop_leases(lambda ticket: ticket.comparison.pair_id in standing or ticket.until <= self._clock())
            own = [
                pair for pair, ticket in self._leases.items() if ticket.annotator == annotator and pair not in besides
            ]
            taken = {*standing, *self._leases, *besides}
            free = [pair for pair in self._comparisons if pair not in taken] if not own else own[:1]
            elsewhere = self._store.held_elsewhere() if not own else ()
            pair_id = next((pair for pair in free if pair not in elsewhere), None)
            return None if pair_id is None else self._lease(pair_id, annotator)

    def answer(self, ticket: Ticket, answer: Answer) -> Receipt:
        """Store what a person says about a pair, once; it is safe on the disk when this returns.

        Raises:
            PairAnsweredError: Another answer stands for the pair, or another one was given on this ticket.
            UsageError: The pair is not one of this stage.

        """
        pair_id = ticket.comparison.pair_id
        if pair_id not in self._comparisons:
            raise UsageError(f"pair `{pair_id}` is not one of those to be labelled")
        label = self._label(ticket, answer)
        with self._store.exclusively():
            earlier = self._spent.get(ticket.ticket_id) or self._store.standing().get(pair_id)
            if earlier is None:
                self._store.record(label)
                lease = self._leases.get(pair_id)
                is_in_time = lease is not None and lease.ticket_id == ticket.ticket_id and self._clock() < lease.until
                self._spent[ticket.ticket_id] = label
                self._given = {**self._given, pair_id: ticket.annotator}
                self._drop_leases(lambda other: other.comparison.pair_id == pair_id)
                return Receipt(label, "in time" if is_in_time else "late")
        if _says(earlier) != _says(label):
            raise PairAnsweredError(earlier)
        return Receipt(earlier, "repeated")

    def undo(self, annotator: str) -> Label | None:
        """Take back the newest answer that this annotator gave through this queue, whose pair they see next.

        None where they have given none here: what a name answered in another sitting may be somebody else's of that name,
        as all are who share an account.
        """
        with self._store.exclusively():
            standing = self._store.standing()
            own = [pair for pair, name in self._given.items() if name == annotator and pair in standing]
            if not own:
                return None
            pair_id = own[-1]
            self._store.retract(pair_id)
            del self._given[pair_id]
            if pair_id not in self._store.held_elsewhere():
                self._lease(pair_id, annotator)
                self._leases = {pair_id: self._leases.pop(pair_id), **self._leases}
            return standing[pair_id]

    def leave(self, annotator: str) -> None:
        """Give back what is out with an annotator who goes away."""
        with self._store.exclusively():
            self._drop_leases(lambda ticket: ticket.annotator == annotator)

    def progress(self) -> QueueProgress:
        """How far the pairs are, by whoever answered them."""
        labels = [label for pair_id, label in self._store.standing().items() if pair_id in self._comparisons]
        answered = {label.pair_id for label in labels}
        held = sum(pair not in answered and ticket.until > self._clock() for pair, ticket in self._leases.items())
        times = [label.seconds for label in labels if label.seconds is not None and not label.taken_from]
        return QueueProgress(
            pairs=len(self._comparisons),
            answered=len(labels),
            held=held,
            waiting=len(self._comparisons) - len(labels) - held,
            outcomes=Counter(label.outcome for label in labels),
            seconds_per_answer=statistics.median(times) if times else None,
        )

    def _lease(self, pair_id: str, annotator: str) -> Ticket:
        comparison, now = self._comparisons[pair_id], self._clock()
        lease = self._leases.get(pair_id)
        ticket = Ticket(
            ticket_id=lease.ticket_id if lease and lease.annotator == annotator else uuid.uuid4().hex,
            annotator=annotator,
            comparison=comparison,
            sides=shown_sides(comparison, annotator, self._seed),
            since=now,
            until=now + self._lease_seconds,
        )
        self._leases[pair_id] = ticket
        self._store.hold(self._leases.keys())
        return ticket

    def _drop_leases(self, is_over: Callable[[Ticket], bool]) -> None:
        kept = {pair: ticket for pair, ticket in self._leases.items() if not is_over(ticket)}
        if kept.keys() != self._leases.keys():
            self._leases = kept
            self._store.hold(kept.keys())

    def _label(self, ticket: Ticket, answer: Answer) -> Label:
        """The label that an answer amounts to; which response is meant is worked out anew, whoever made the ticket."""
        comparison = self._comparisons[ticket.comparison.pair_id]
        sides = dict(zip(("first", "second"), shown_sides(comparison, ticket.annotator, self._seed), strict=True))
        preferred = sides.get(answer.choice)
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
        )


def _says(label: Label) -> tuple[str | None, Outcome, str | None]:
    return label.annotator, label.outcome, label.preferred_id
