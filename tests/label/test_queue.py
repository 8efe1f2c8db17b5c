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
from activedpo_cli.base.records import Asked
from activedpo_cli.label.questions import Question
from activedpo_cli.label.queue import Answer, PairAnsweredError, Queue, QueueProgress, shown_sides

COMPARISONS = [make_comparison(number, f"one of {number}", f"other of {number}") for number in range(1, 6)]
QUESTIONS = [Question(comparison=comparison) for comparison in COMPARISONS]
IDS = [question.comparison.pair_id for question in QUESTIONS]
CHOICES = ["first", "second", "tie", "both_bad", "skip"]
LEASE = 60.0


class Log:
    """The events of a stage, as every process sees them, and which pairs each process has handed out."""

    def __init__(self):
        self.events = []
        self.held = {}

    @property
    def standing(self):
        """What stands, told from the events alone."""
        labels = {}
        for kind, what in self.events:
            if kind == "label":
                assert what.asked not in labels, "somebody answers a pair twice"
                labels[what.asked] = what
            else:
                del labels[what]
        return labels

    @property
    def final(self):
        """The first answer to each pair."""
        first = {}
        for label in self.standing.values():
            first.setdefault(label.pair_id, label)
        return first


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

    def answers(self):
        return list(self.log.standing.values())

    def given_as(self, answer_id):
        labels = [what for kind, what in self.log.events if kind == "label"]
        return next((label for label in labels if label.answer_id == answer_id), None)

    def record(self, label):
        assert self.is_locked
        self.log.events.append(("label", label))

    def retract(self, asked):
        assert self.is_locked
        self.log.events.append(("retract", asked))

    def held_elsewhere(self):
        assert self.is_locked
        return {asked for name, held in self.log.held.items() if name != self.name for asked in held}

    def hold(self, asked):
        assert self.is_locked
        self.log.held[self.name] = set(asked)


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


def queue_of(log, clock, name="one", seed=0, questions=QUESTIONS, **settings):
    return Queue(questions, Store(log, name), oracle="human", seed=seed, clock=clock, lease_seconds=LEASE, **settings)


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


def test_who_was_faster_counts_and_the_slower_one_measures(queue, log, clock):
    slow = queue.next("ann")
    clock.time += LEASE
    kept = queue.answer(queue.next("bob"), Answer(choice="first")).label
    further = queue.answer(slow, Answer(choice="first"))
    assert (kept.role, further.label.role, further.arrival) == ("selected", "overlap", "late")
    assert log.final == {IDS[0]: kept}
    with pytest.raises(PairAnsweredError, match="answered meanwhile by ann"):
        queue.answer(replace(slow, ticket_id="of another tab"), Answer(choice="tie"))
    assert len(log.events) == 2


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
    ticket = Queue(
        [Question(comparison=make_comparison(99))], Store(log, "x"), oracle="human", seed=0, clock=Clock()
    ).next("ann")
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
        given=3,
        most=5,
        pairs=5,
        answered=3,
        held=1,
        waiting=1,
        outcomes=Counter(chosen=1, tie=1, skip=1),
        seconds_per_answer=10.0,
    )
    clock.time += LEASE
    assert (queue.progress().held, queue.progress().waiting) == (0, 2)


OVERLAPPING = [*QUESTIONS[:2], replace(QUESTIONS[2], people=2), replace(QUESTIONS[3], people=2), QUESTIONS[4]]


def answer_all(queue, person, choice="first", number=100):
    """What a person is shown until there is nothing for them, or `number` pairs."""
    seen = []
    while len(seen) < number and (ticket := queue.next(person)) is not None:
        queue.answer(ticket, Answer(choice=choice))
        seen.append(ticket)
    return seen


def test_a_second_person_is_asked_where_two_are_wanted_and_nowhere_else(log, clock):
    queue = queue_of(log, clock, questions=OVERLAPPING)
    assert [pair_of(ticket) for ticket in answer_all(queue, "ann")] == IDS
    assert queue.progress().waiting == 2
    assert [pair_of(ticket) for ticket in answer_all(queue, "bob")] == IDS[2:4]
    assert queue.next("cat") is None
    assert [(label.pair_id, label.role) for label in log.standing.values() if label.annotator == "bob"] == [
        (IDS[2], "overlap"),
        (IDS[3], "overlap"),
    ]
    assert (queue.progress().answered, queue.progress().pairs, queue.progress().waiting) == (7, 7, 0)


def test_pairs_that_nobody_has_come_before_second_opinions(log, clock):
    queue = queue_of(log, clock, questions=OVERLAPPING)
    shown = [pair_of(queue.next(person, besides)) for person, besides in (("ann", []), ("bob", []), ("ann", IDS[:2]))]
    assert shown == IDS[:3]
    assert pair_of(queue.next("bob", IDS[:2])) == IDS[3]
    assert pair_of(queue.next("cat")) == IDS[4]
    assert pair_of(queue.next("dan")) == IDS[2]
    assert pair_of(queue.next("eve")) == IDS[3]
    assert queue.next("fay") is None


def test_a_third_is_asked_where_two_differ(log, clock):
    queue = queue_of(log, clock, questions=OVERLAPPING, third_decides=True)
    answer_all(queue, "ann", "tie")
    for choice in ("tie", "both_bad"):
        queue.answer(queue.next("bob"), Answer(choice=choice))
    assert [pair_of(ticket) for ticket in answer_all(queue, "cat", "skip")] == [IDS[3]]
    assert queue.next("dan") is None


def test_no_third_is_asked_where_one_skipped_nor_about_what_only_measures(log, clock):
    questions = [replace(QUESTIONS[0], people=2), replace(QUESTIONS[1], people=2, role="control")]
    queue = queue_of(log, clock, questions=questions, third_decides=True)
    answer_all(queue, "ann", "tie")
    for choice in ("skip", "both_bad"):
        queue.answer(queue.next("bob"), Answer(choice=choice))
    assert queue.next("cat") is None


def test_gold_comes_to_everybody_among_the_others_and_is_waited_for_on_a_screen(log, clock):
    questions = [Question(comparison=make_comparison(number)) for number in range(1, 31)]
    questions[2] = replace(questions[2], role="gold")
    gold = questions[2].comparison.pair_id
    queue = queue_of(log, clock, questions=questions)
    assert gold in [pair_of(ticket) for ticket in answer_all(queue, "ann", number=10)]
    shown = []
    while (ticket := queue.next("bob")) and pair_of(ticket) != gold:
        shown.append(queue.answer(ticket, Answer(choice="tie")))
    assert 3 <= len(shown) < 15
    answer_all(queue, "ann")
    assert queue.progress().answered == queue.progress().pairs
    assert not queue.is_all_answered()
    queue.answer(ticket, Answer(choice="first"))
    assert queue.is_all_answered()
    assert queue.next("bob") is None


def test_an_answer_that_was_taken_back_is_asked_for_again_also_where_its_repetition_stands(log, clock):
    questions = [Question(comparison=make_comparison(number)) for number in range(1, 14)]
    queue = queue_of(log, clock, questions=questions, repeats=1)
    first, *_, last = answer_all(queue, "ann", number=12)
    assert last.is_repeat
    log.events.append(("retract", first.asked))
    assert pair_of(queue_of(log, clock, "two", questions=questions, repeats=1).next("ann")) == pair_of(first)


def test_nobody_learns_why_they_are_asked_and_the_log_does(log, clock):
    roles = ["selected", "control", "gold"]
    known = COMPARISONS[2].response_a.response_id
    mixed = [replace(question, role=role) for question, role in zip(QUESTIONS[:3], roles, strict=True)]
    mixed[2] = replace(mixed[2], known_id=known)
    tickets = answer_all(queue_of(log, clock, questions=mixed), "ann")
    assert {frozenset(vars(ticket)) for ticket in tickets} == {frozenset(vars(tickets[0]))}
    assert not any(value in roles for ticket in tickets for value in vars(ticket).values())
    assert [(label.role, label.known_id) for label in log.standing.values()] == [
        ("selected", None),
        ("control", None),
        ("gold", known),
    ]
    further = queue_of(log, clock, "two", questions=[replace(question, people=2) for question in mixed])
    answer_all(further, "bob")
    assert [label.role for label in list(log.standing.values())[3:]] == ["overlap", "control", "gold"]


@pytest.mark.parametrize(("pairs", "repeats", "expected"), [(30, 4, 4), (11, 4, 1), (10, 4, 0), (30, 0, 0), (14, 9, 4)])
def test_some_come_again_turned_around_after_ten_others(log, clock, pairs, repeats, expected):
    questions = [Question(comparison=make_comparison(number)) for number in range(1, pairs + 1)]
    tickets = answer_all(queue_of(log, clock, questions=questions, repeats=repeats), "ann")
    again = [place for place, ticket in enumerate(tickets) if ticket.is_repeat]
    assert len(again) == expected
    for place in again:
        first = next(number for number, ticket in enumerate(tickets) if pair_of(ticket) == pair_of(tickets[place]))
        assert not tickets[first].is_repeat
        assert sum(not ticket.is_repeat for ticket in tickets[first + 1 : place]) >= 10
        assert tickets[first].sides == tickets[place].sides[::-1]
    assert len({pair_of(tickets[place]) for place in again}) == expected
    roles = Counter(label.role for label in log.standing.values())
    assert (roles["selected"], roles["repeat"]) == (pairs, expected)
    assert len(log.final) == pairs


def test_the_count_moves_alike_with_every_answer_of_a_person(log, clock):
    """Else one would see which pairs came again, or were known before."""
    questions = [Question(comparison=make_comparison(number)) for number in range(1, 31)]
    questions[4] = replace(questions[4], role="gold")
    questions[8] = replace(questions[8], role="control")
    queue = queue_of(log, clock, questions=questions, repeats=4)
    told = []

    def label(person):
        ticket = queue.next(person)
        if ticket is None:
            return False
        queue.answer(ticket, Answer(choice="tie"))
        told.append((queue.progress(person).given, queue.progress(person).most))
        return True

    for _ in range(16):
        label("ann")
    assert {most for _, most in told} == {30 + 4}
    queue.next("bob")
    while label("bob") | label("ann"):
        pass
    assert [given for given, _ in told] == list(range(1, len(told) + 1))
    assert {most for _, most in told[16:-1]} == {30 + 2 * 4 + 1}, "a second person is asked as much beside"
    assert told[-1][0] == told[-1][1] == len(log.standing) < 39, "the end comes no later than said"
    assert Counter(label.role for label in log.standing.values())["repeat"] == 3


def test_all_is_answered_by_somebody_only_once_their_repetitions_are(log, clock):
    questions = [Question(comparison=make_comparison(number)) for number in range(1, 13)]
    queue = queue_of(log, clock, questions=questions, repeats=2)
    tickets = answer_all(queue, "ann", number=13)
    assert [ticket.is_repeat for ticket in tickets[-3:]] == [False, True, False]
    assert (queue.is_all_answered("ann"), queue.is_all_answered("bob")) == (False, True)
    assert (queue.progress("ann").given, queue.progress("ann").most) == (13, 14)
    answer_all(queue, "ann")
    assert queue.is_all_answered("ann")


def test_an_answer_that_is_sent_again_under_its_name_after_a_restart_counts_once(log, clock):
    """Also when it was taken back in between: the page that sends it again does not know that."""
    before = queue_of(log, clock)
    ticket = before.next("ann")
    before.answer(ticket, Answer(choice="tie", answer_id="made by the page"))
    after = queue_of(log, clock)
    assert after.answer(ticket, Answer(choice="tie", answer_id="made by the page")).arrival == "repeated"
    before.undo("ann")
    assert queue_of(log, clock).answer(ticket, Answer(choice="tie", answer_id="made by the page")).arrival == "repeated"
    assert log.final == {}


def test_the_label_says_what_was_shown_first_and_where(log, clock):
    queue = queue_of(log, clock, channel="web")
    ticket = queue.next("ann")
    label = queue.answer(ticket, Answer(choice="first", view="markdown", answer_id="x")).label
    assert label.first_id == label.preferred_id == ticket.sides[0].response_id
    assert (label.channel, label.view, label.answer_id) == ("web", "markdown", "x")


class PeopleAtWork(RuleBasedStateMachine):
    """Two processes, three people, a clock, pairs for one and for two, and an honest model of who has which until when."""

    tickets = Bundle("tickets")
    processes = st.sampled_from(["one", "two"])
    people = st.sampled_from(["ann", "bob", "cat"])

    @initialize()
    def begin(self):
        self.log, self.clock = Log(), Clock()
        self.queues = {name: self._queue(name) for name in ("one", "two")}
        self.shown = {}  # pair and person: process, until
        self.stored = []
        self.given = []  # process, person and pair of each answer that stands, the newest last

    def _queue(self, name):
        return queue_of(self.log, self.clock, name, questions=OVERLAPPING)

    def _out(self, process):
        """Who has which pair before them, as far as this process can know; what is over is free where it was noticed."""
        return {
            (pair, person): owner
            for (pair, person), (owner, until) in self.shown.items()
            if until > self.clock.time or (owner != process and Asked(pair, person) in self.log.held.get(owner, ()))
        }

    def _missing(self, question, process):
        pair = question.comparison.pair_id
        given = sum(label.pair_id == pair for label in self.log.standing.values())
        return question.people - given - sum(held == pair for held, _ in self._out(process))

    @rule(target=tickets, process=processes, person=people)
    def show(self, process, person):
        self._forget(process)
        out, standing = self._out(process), self.log.standing
        own = [pair for (pair, who), owner in out.items() if (who, owner) == (person, process)]
        seen = {pair for pair, who in out if who == person} | {
            one.pair_id for one in standing if one.annotator == person
        }
        free = [
            question.comparison.pair_id
            for question in OVERLAPPING
            if question.comparison.pair_id not in seen and self._missing(question, process) > 0
        ]
        ticket = self.queues[process].next(person)
        if ticket is None:
            assert not own
            assert not free
            return multiple()
        pair = pair_of(ticket)
        assert pair in (own or free)
        self.shown[pair, person] = (process, ticket.until)
        return ticket

    def _forget(self, process):
        given = Counter(asked.pair_id for asked in self.log.standing)
        enough = {one.comparison.pair_id for one in OVERLAPPING if given[one.comparison.pair_id] >= one.people}
        for key, (owner, until) in list(self.shown.items()):
            is_over = until <= self.clock.time or key[0] in enough or Asked(*key) in self.log.standing
            if owner == process and is_over:
                del self.shown[key]

    @rule(process=processes, ticket=tickets, choice=st.sampled_from(CHOICES))
    def answer(self, process, ticket, choice):
        before, asked = self.log.standing, ticket.asked
        receipt = error = None
        try:
            receipt = self.queues[process].answer(ticket, Answer(choice=choice))
        except PairAnsweredError as caught:
            error = caught
        if receipt is None:
            assert self.log.standing == before
            assert error.label in self.stored
            return
        if receipt.arrival == "repeated":
            assert self.log.standing == before
            assert receipt.label in self.stored
            return
        assert asked not in before
        assert self.log.standing == before | {asked: receipt.label}
        is_further = any(other.pair_id == asked.pair_id for other in before)
        assert receipt.label.role == ("overlap" if is_further else "selected")
        self.stored.append(receipt.label)
        self.given.append((process, ticket.annotator, asked.pair_id))
        if self.shown.get((asked.pair_id, ticket.annotator), (None,))[0] == process:
            del self.shown[asked.pair_id, ticket.annotator]

    @rule(process=processes, person=people)
    def undo(self, process, person):
        self._forget(process)
        before = self.log.standing
        own = [pair for *who, pair in self.given if who == [process, person] and Asked(pair, person) in before]
        label = self.queues[process].undo(person)
        assert label == (before[Asked(own[-1], person)] if own else None)
        if label is None:
            assert self.log.standing == before
            return
        self.given.remove((process, person, label.pair_id))
        assert self.log.standing == {asked: kept for asked, kept in before.items() if asked != label.asked}
        question = next(question for question in OVERLAPPING if question.comparison.pair_id == label.pair_id)
        if (label.pair_id, person) not in self._out(process) and self._missing(question, process) > 0:
            ticket = self.queues[process].next(person)
            assert pair_of(ticket) == label.pair_id
            self.shown[label.pair_id, person] = (process, ticket.until)

    @rule(process=processes, person=people)
    def leave(self, process, person):
        self.queues[process].leave(person)
        self.shown = {key: held for key, held in self.shown.items() if (held[0], key[1]) != (process, person)}

    @rule(process=processes)
    def restart(self, process):
        self.given = [given for given in self.given if given[0] != process]
        self.log.held.pop(process, None)
        self.queues[process] = self._queue(process)
        self.shown = {key: held for key, held in self.shown.items() if held[0] != process}

    @rule(seconds=st.sampled_from([1.0, LEASE / 2, LEASE]))
    def wait(self, seconds):
        self.clock.time += seconds

    @invariant()
    def nothing_is_lost_and_progress_adds_up(self):
        standing = self.log.standing  # which itself refuses that somebody answers twice
        given = [what for kind, what in self.log.events if kind == "label"]
        assert given == self.stored
        wanted = sum(question.people for question in OVERLAPPING)
        counted = sum(
            min(question.people, sum(asked.pair_id == question.comparison.pair_id for asked in standing))
            for question in OVERLAPPING
        )
        for queue in self.queues.values():
            progress = queue.progress()
            assert progress.answered == counted
            assert progress.answered + progress.held + progress.waiting == progress.pairs == wanted
            assert sum(progress.outcomes.values()) == len(standing)


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
