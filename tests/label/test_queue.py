"""No pair is answered twice, no answer is lost, and nobody is shown what somebody else is reading."""

import contextlib
import math
from collections import Counter
from dataclasses import replace

import pytest
from compared_pairs import make_comparison
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from activedpo_cli.base.errors import UsageError
from activedpo_cli.label.queue import Answer, PairAnsweredError, Queue, QueueProgress, shown_sides

COMPARISONS = [make_comparison(number, f"one of {number}", f"other of {number}") for number in range(1, 6)]
IDS = [comparison.pair_id for comparison in COMPARISONS]
CHOICES = ["first", "second", "tie", "both_bad", "skip"]
LEASE = 60.0


class Log:
    """The events of a stage, as every process sees them, and which pairs each process has handed out."""

    def __init__(self):
        self.events = []
        self.held = {}

    @property
    def final(self):
        """What stands: the last event about each pair, told from the events alone."""
        labels = {}
        for kind, what in self.events:
            if kind == "label":
                assert what.pair_id not in labels, "a pair is answered twice"
                labels[what.pair_id] = what
            else:
                del labels[what]
        return labels


class Store:
    """One process's view of a log."""

    def __init__(self, log, name):
        self.log, self.name, self.is_locked = log, name, False

    @contextlib.contextmanager
    def exclusively(self):
        assert not self.is_locked
        self.is_locked = True
        yield
        self.is_locked = False

    def standing(self):
        return self.log.final

    def record(self, label):
        assert self.is_locked
        self.log.events.append(("label", label))

    def retract(self, pair_id):
        assert self.is_locked
        self.log.events.append(("retract", pair_id))

    def held_elsewhere(self):
        assert self.is_locked
        return {pair for name, pairs in self.log.held.items() if name != self.name for pair in pairs}

    def hold(self, pair_ids):
        assert self.is_locked
        self.log.held[self.name] = set(pair_ids)


class Clock:
    time = 1000.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log():
    return Log()


def queue_of(log, clock, name="one", seed=0):
    return Queue(COMPARISONS, Store(log, name), oracle="human", seed=seed, clock=clock, lease_seconds=LEASE)


@pytest.fixture
def queue(log, clock):
    return queue_of(log, clock)


def pair_of(ticket):
    return None if ticket is None else ticket.comparison.pair_id


@pytest.mark.parametrize("choice", CHOICES)
def test_an_answer_is_about_the_response_that_was_shown_there(queue, log, clock, choice):
    ticket = queue.next("ann")
    clock.time += 12.5
    receipt = queue.answer(ticket, Answer(choice=choice, note="hm"))
    preferred = {"first": ticket.sides[0].response_id, "second": ticket.sides[1].response_id}.get(choice)
    label = receipt.label
    assert receipt.arrival == "in time"
    assert (label.pair_id, label.preferred_id, label.note, label.seconds) == (IDS[0], preferred, "hm", 12.5)
    assert label.outcome == ("chosen" if preferred else choice)
    assert (label.oracle, label.annotator) == ("human", "ann")
    assert log.events == [("label", label)]


def test_seconds_may_be_measured_elsewhere(queue):
    assert queue.answer(queue.next("ann"), Answer(choice="tie", seconds=3.21987)).label.seconds == 3.22


def test_nobody_is_shown_what_somebody_else_reads(queue):
    assert [pair_of(queue.next(name)) for name in ("ann", "bob", "cat", "ann", "bob")] == [*IDS[:3], IDS[0], IDS[1]]


def test_a_page_can_fetch_a_pair_ahead(queue):
    first = queue.next("ann")
    second = queue.next("ann", besides=[pair_of(first)])
    assert (pair_of(first), pair_of(second), pair_of(queue.next("bob"))) == tuple(IDS[:3])
    queue.answer(first, Answer(choice="tie"))
    assert pair_of(queue.next("ann")) == IDS[1]


def test_a_pair_that_was_let_go_is_for_everybody(queue, clock):
    late = queue.next("ann")
    clock.time += LEASE
    assert pair_of(queue.next("bob")) == IDS[0]
    assert pair_of(queue.next("ann")) == IDS[1]
    assert queue.answer(late, Answer(choice="tie")).arrival == "late"


def test_who_was_faster_counts(queue, log, clock):
    slow = queue.next("ann")
    clock.time += LEASE
    fast = queue.next("bob")
    kept = queue.answer(fast, Answer(choice="first")).label
    with pytest.raises(PairAnsweredError, match="answered meanwhile by bob") as refusal:
        queue.answer(slow, Answer(choice="first"))
    assert refusal.value.label == kept
    assert log.events == [("label", kept)]


def test_an_answer_that_arrives_twice_counts_once(queue, log, clock):
    ticket = queue.next("ann")
    first = queue.answer(ticket, Answer(choice="tie"))
    clock.time += 1
    again = queue.answer(ticket, Answer(choice="tie"))
    assert (again.label, again.arrival) == (first.label, "repeated")
    with pytest.raises(PairAnsweredError):
        queue.answer(ticket, Answer(choice="skip"))
    assert len(log.events) == 1


def test_a_repetition_that_arrives_after_an_undo_is_no_answer(queue, log):
    ticket = queue.next("ann")
    queue.answer(ticket, Answer(choice="tie"))
    queue.undo("ann")
    assert queue.answer(ticket, Answer(choice="tie")).arrival == "repeated"
    assert log.final == {}


def test_tickets_from_before_a_restart_are_good(log, clock):
    before = queue_of(log, clock)
    answered, waiting = before.next("ann"), before.next("bob")
    before.answer(answered, Answer(choice="tie"))
    log.held.clear()
    after = queue_of(log, clock)
    assert after.answer(answered, Answer(choice="tie")).arrival == "repeated", "its receipt was lost on the way"
    assert after.answer(waiting, Answer(choice="skip")).arrival == "late"
    assert [label.outcome for label in log.final.values()] == ["tie", "skip"]


def test_a_ticket_of_another_stage_is_refused(queue, log):
    ticket = Queue([make_comparison(99)], Store(log, "x"), oracle="human", seed=0, clock=Clock()).next("ann")
    with pytest.raises(UsageError, match="p000099"):
        queue.answer(ticket, Answer(choice="tie"))


def test_undo_takes_ones_own_newest_back_and_shows_it_next(queue, log):
    for name in ("ann", "bob", "ann", "bob"):
        queue.answer(queue.next(name), Answer(choice="tie"))
    on_the_screen = queue.next("ann")
    assert queue.undo("ann").pair_id == IDS[2]
    assert list(log.final) == [IDS[0], IDS[1], IDS[3]]
    again = queue.next("ann")
    assert pair_of(again) == IDS[2]
    assert queue.answer(again, Answer(choice="skip")).arrival == "in time"
    assert pair_of(queue.next("ann")) == pair_of(on_the_screen) == IDS[4]
    assert queue.undo("cat") is None


def test_undo_leaves_what_the_same_name_answered_elsewhere(log, clock):
    """Also while both sit, and also the answer that came last of all."""
    one, two = queue_of(log, clock, "one"), queue_of(log, clock, "two")
    one.answer(one.next("root"), Answer(choice="tie"))
    two.answer(two.next("root"), Answer(choice="skip"))
    assert one.undo("root").pair_id == IDS[0]
    assert one.undo("root") is None
    assert queue_of(log, clock, "one").undo("root") is None
    assert list(log.final) == [IDS[1]]


def test_who_leaves_gives_the_pair_back(queue):
    queue.next("ann")
    queue.leave("ann")
    assert pair_of(queue.next("bob")) == IDS[0]


def test_two_processes_show_different_pairs(log, clock):
    """Also to two people who are called the same, as two terminals of one account are."""
    one, two = queue_of(log, clock, "one"), queue_of(log, clock, "two")
    assert [pair_of(one.next("root")), pair_of(two.next("root"))] == IDS[:2]
    del log.held["one"]  # its process has ended
    assert pair_of(two.next("root", besides=[IDS[1]])) == IDS[0]


def test_the_time_of_an_answer_that_was_taken_over_was_spent_before(queue, log):
    receipt = queue.answer(queue.next("ann"), Answer(choice="tie", seconds=1000.0))
    log.events[0] = ("label", replace(receipt.label, taken_from="iter-001/label"))
    queue.answer(queue.next("ann"), Answer(choice="tie", seconds=4.0))
    assert (queue.progress().answered, queue.progress().seconds_per_answer) == (2, 4.0)


def test_progress(queue, clock):
    for choice, seconds in (("first", 4.0), ("tie", 10.0), ("skip", 100.0)):
        queue.answer(queue.next("ann"), Answer(choice=choice, seconds=seconds))
    queue.next("ann")
    assert queue.progress() == QueueProgress(
        pairs=5, answered=3, held=1, waiting=1, outcomes=Counter(chosen=1, tie=1, skip=1), seconds_per_answer=10.0
    )
    clock.time += LEASE
    assert (queue.progress().held, queue.progress().waiting) == (0, 2)


class PeopleAtWork(RuleBasedStateMachine):
    """Two processes, three people, a clock, and an honest model of who has which pair until when."""

    tickets = Bundle("tickets")
    processes = st.sampled_from(["one", "two"])
    people = st.sampled_from(["ann", "bob", "cat"])

    @initialize()
    def begin(self):
        self.log, self.clock = Log(), Clock()
        self.queues = {name: queue_of(self.log, self.clock, name) for name in ("one", "two")}
        self.shown = {}  # pair: process, person, until
        self.stored = []
        self.given = []  # process, person and pair of each answer that stands, the newest last

    @rule(target=tickets, process=processes, person=people)
    def show(self, process, person):
        ticket = self.queues[process].next(person)
        answered = self.log.final
        free = [
            pair
            for pair in IDS
            if pair not in answered
            and (pair not in self.shown or self.shown[pair][:2] == (process, person) or self._is_free_to(pair, process))
        ]
        if ticket is None:
            assert not free
            return multiple()
        pair = pair_of(ticket)
        assert pair in free
        self._forget(process)
        self.shown[pair] = (process, person, ticket.until)
        return ticket

    def _is_free_to(self, pair, process):
        """A pair whose time is over is free in the process that showed it, and elsewhere once that has noticed."""
        owner, _, until = self.shown[pair]
        return until <= self.clock.time and (owner == process or pair not in self.log.held.get(owner, ()))

    def _forget(self, process):
        for pair, (owner, _, until) in list(self.shown.items()):
            if until <= self.clock.time and owner == process:
                del self.shown[pair]

    @rule(process=processes, ticket=tickets, choice=st.sampled_from(CHOICES))
    def answer(self, process, ticket, choice):
        before, pair = self.log.final, pair_of(ticket)
        receipt = error = None
        try:
            receipt = self.queues[process].answer(ticket, Answer(choice=choice))
        except PairAnsweredError as caught:
            error = caught
        if receipt is None:
            assert self.log.final == before
            assert error.label in self.stored
            return
        if receipt.arrival == "repeated":
            assert self.log.final == before
            assert receipt.label in self.stored
            return
        assert pair not in before
        assert self.log.final == before | {pair: receipt.label}
        assert (receipt.label.annotator, receipt.label.pair_id) == (ticket.annotator, pair)
        self.stored.append(receipt.label)
        self.given.append((process, ticket.annotator, pair))
        if pair in self.shown and self.shown[pair][0] == process:
            del self.shown[pair]

    @rule(process=processes, person=people)
    def undo(self, process, person):
        before = self.log.final
        own = [pair for *who, pair in self.given if who == [process, person]]
        label = self.queues[process].undo(person)
        assert label == (before[own[-1]] if own else None)
        if label is None:
            assert self.log.final == before
            return
        self.given.remove((process, person, label.pair_id))
        assert self.log.final == {pair: kept for pair, kept in before.items() if pair != label.pair_id}
        other = self.shown.get(label.pair_id)
        if other is None or other[0] == process or label.pair_id not in self.log.held.get(other[0], ()):
            ticket = self.queues[process].next(person)
            assert pair_of(ticket) == label.pair_id
            self._forget(process)
            self.shown[label.pair_id] = (process, person, ticket.until)

    @rule(process=processes, person=people)
    def leave(self, process, person):
        self.queues[process].leave(person)
        self.shown = {pair: who for pair, who in self.shown.items() if who[:2] != (process, person)}

    @rule(process=processes)
    def restart(self, process):
        self.given = [given for given in self.given if given[0] != process]
        self.log.held.pop(process, None)
        self.queues[process] = queue_of(self.log, self.clock, process)
        self.shown = {pair: who for pair, who in self.shown.items() if who[0] != process}

    @rule(seconds=st.sampled_from([1.0, LEASE / 2, LEASE]))
    def wait(self, seconds):
        self.clock.time += seconds

    @invariant()
    def nothing_is_lost_and_progress_adds_up(self):
        final = self.log.final  # which itself refuses a pair that was answered twice
        given = [what for kind, what in self.log.events if kind == "label"]
        assert given == self.stored
        for queue in self.queues.values():
            progress = queue.progress()
            assert progress.answered == len(final)
            assert progress.answered + progress.held + progress.waiting == progress.pairs == len(IDS)
            assert sum(progress.outcomes.values()) == progress.answered


TestPeopleAtWork = PeopleAtWork.TestCase
TestPeopleAtWork.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def first_shown(annotator="ann", seed=0, number=2000):
    comparisons = [make_comparison(index) for index in range(number)]
    return [shown_sides(pair, annotator, seed)[0] is pair.response_a for pair in comparisons]


def test_both_responses_are_shown():
    pair = make_comparison(3)
    assert set(map(id, shown_sides(pair, "ann", 0))) == {id(pair.response_a), id(pair.response_b)}


def test_sides_are_repeatable_and_about_half_are_swapped():
    sides = first_shown()
    assert sides == first_shown()
    assert abs(sum(sides) - 1000) < 4 * math.sqrt(500)


def test_sides_differ_between_people_and_seeds():
    for other in (first_shown(annotator="bob"), first_shown(seed=1)):
        agreeing = sum(x == y for x, y in zip(first_shown(), other, strict=True))
        assert abs(agreeing - 1000) < 4 * math.sqrt(500)
