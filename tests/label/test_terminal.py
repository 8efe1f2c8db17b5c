import contextlib
import re

import pytest
from compared_pairs import make_comparison
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.base.errors import BusyError
from activedpo_cli.base.records import Asked, Label
from activedpo_cli.label.questions import Question
from activedpo_cli.label.queue import Queue
from activedpo_cli.label.terminal import Terminal, label_session

COMPARISONS = [
    make_comparison(number, f"the {number}th first text", f"the {number}th other text", prompt=f"prompt {number}")
    for number in range(1, 6)
]
IDS = [pair.pair_id for pair in COMPARISONS]


class Person:
    """Types the given lines, sees the screen, and keeps the log as the store would."""

    def __init__(self, lines, *, seconds_per_line=10.0):
        self.lines = list(lines)
        self.screen = ""
        self.events = []
        self.time = 0.0
        self.seconds_per_line = seconds_per_line
        self.screen_at_record = []
        self.earlier = {}
        self.elsewhere = set()

    def read_line(self):
        self.time += self.seconds_per_line
        if not self.lines:
            return None
        line = self.lines.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line

    def write(self, text):
        self.screen += text

    def exclusively(self):
        return contextlib.nullcontext()

    def answers(self):
        return list(self.final.values())

    def given_as(self, answer_id):
        return None

    def record(self, label):
        self.screen_at_record.append(self.screen)
        self.events.append(label)

    def retract(self, asked):
        self.events.append(asked.pair_id)

    def held_elsewhere(self):
        return self.elsewhere

    def hold(self, asked):
        self.held = [one.pair_id for one in asked]

    @property
    def final(self):
        """Last event wins, also over what earlier sessions left."""
        labels = dict(self.earlier)
        for event in self.events:
            if isinstance(event, Label):
                labels[event.pair_id] = event
            else:
                del labels[event]
        return labels

    def sit_down(self, comparisons=COMPARISONS, labels=None, *, annotator="ann", seed=0, guidelines=None):
        """How many pairs have an answer, how many have none, and whether the person quit."""
        self.earlier = dict(labels or {})
        questions = [Question(comparison=comparison) for comparison in comparisons]
        queue = Queue(questions, self, oracle="human", seed=seed, clock=lambda: self.time)
        terminal = Terminal(read_line=self.read_line, write=self.write)
        has_quit = label_session(queue, annotator=annotator, terminal=terminal, guidelines=guidelines)
        progress = queue.progress()
        return progress.answered, progress.waiting, has_quit


def shown_texts(screen):
    """The texts under `Response 1` and `Response 2`, in the order of the screen."""
    return re.findall(r"^Response [12]\n    (.*)$", screen, flags=re.MULTILINE)


def text_of(response_id):
    for pair in COMPARISONS:
        for response in (pair.response_a, pair.response_b):
            if response.response_id == response_id:
                return response.text
    raise AssertionError(response_id)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("key", ["1", "2"])
def test_the_label_names_the_response_that_was_shown_there(key, seed):
    person = Person([key] * 5)
    assert person.sit_down(seed=seed) == (5, 0, False)
    shown = shown_texts(person.screen)
    for place, label in enumerate(person.events):
        assert label.pair_id == IDS[place]
        assert label.outcome == "chosen"
        assert text_of(label.preferred_id) == shown[2 * place + int(key) - 1]


def test_sides_are_shuffled():
    person = Person(["1"] * 5)
    person.sit_down()
    assert {label.preferred_id[-2:] for label in person.events} == {"r0", "r1"}


def test_every_outcome():
    person = Person(["T", " b ", "s", "1"])
    assert person.sit_down() == (4, 1, True)
    assert [(label.outcome, label.preferred_id is None) for label in person.events] == [
        ("tie", True),
        ("both_bad", True),
        ("skip", True),
        ("chosen", False),
    ]
    assert all((label.oracle, label.annotator, label.seconds) == ("human", "ann", 10.0) for label in person.events)


def test_an_answer_is_stored_before_the_screen_says_so():
    person = Person(["1", "t", "q"])
    person.sit_down()
    assert [screen.count("saved") for screen in person.screen_at_record] == [0, 1]
    assert person.screen.count("saved") == 2


def test_an_answer_that_cannot_be_stored_is_not_acknowledged():
    person = Person(["1"])

    def full_disk(label):
        raise OSError("no space left")

    person.record = full_disk
    with pytest.raises(OSError, match="no space"):
        person.sit_down()
    assert "saved" not in person.screen


def test_a_session_goes_on_at_the_first_pair_without_a_label():
    first = Person(["1", "s"])
    assert first.sit_down() == (2, 3, True)
    second = Person(["2", "2", "2"])
    assert second.sit_down(labels=first.final) == (5, 0, False)
    assert [label.pair_id for label in second.events] == IDS[2:]


def test_nothing_is_asked_when_everything_is_answered():
    first = Person(["1"] * 5)
    first.sit_down()
    again = Person([])
    assert again.sit_down(labels=first.final) == (5, 0, False)
    assert again.events == []


def test_undo_reopens_the_pair_and_the_last_answer_counts():
    person = Person(["t", "t", "u", "b", "t", "t", "t"])
    assert person.sit_down() == (5, 0, False)
    assert [event if isinstance(event, str) else (event.pair_id, event.outcome) for event in person.events[:4]] == [
        (IDS[0], "tie"),
        (IDS[1], "tie"),
        IDS[1],
        (IDS[1], "both_bad"),
    ]
    assert {pair: label.outcome for pair, label in person.final.items()} == {
        pair: "both_bad" if pair == IDS[1] else "tie" for pair in IDS
    }


def test_undo_is_stored_before_the_screen_says_so():
    person = Person(["t", "u", "q"])
    seen = []

    def retract(asked):
        seen.append(person.screen.count("undone"))
        person.events.append(asked.pair_id)

    person.retract = retract
    person.sit_down()
    assert seen == [0]
    assert "undone   0/5" in person.screen


def test_undo_ends_with_the_sitting():
    """What the same name answered in an earlier one may be somebody else's, who shares the account."""
    first = Person(["t", "t"])
    first.sit_down()
    second = Person(["u", "b", "u", "u", "q"])
    assert second.sit_down(labels=first.final) == (2, 3, True)
    assert second.events[0].pair_id == second.events[1] == IDS[2]
    assert second.final == first.final
    assert second.screen.count("nothing of yours to undo") == 2


def test_only_ones_own_answers_are_undone():
    first = Person(["t", "t"])
    first.sit_down(annotator="ann")
    second = Person(["u", "b", "u", "u", "q"])
    assert second.sit_down(labels=first.final, annotator="bob") == (2, 3, True)
    assert list(second.final) == IDS[:2]
    assert second.screen.count("nothing of yours to undo") == 2


def test_pairs_that_somebody_else_has_are_left_to_them():
    person = Person(["t"] * 5)
    person.elsewhere = {Asked(IDS[1], "bob"), Asked(IDS[4], "cat")}
    assert person.sit_down() == (3, 2, False)
    assert list(person.final) == [IDS[0], IDS[2], IDS[3]]
    assert "2 answers are left to other people" in person.screen


def slower_than_ann(annotator):
    """Somebody who answers the first pair after ann has done so."""
    first = Person(["t"])
    first.sit_down(annotator="ann")
    second = Person(["1", "q"])
    read_line = second.read_line

    def slow():
        second.earlier = first.final
        return read_line()

    second.read_line = slow
    second.sit_down(annotator=annotator)
    return second


def test_a_pair_that_was_answered_meanwhile_is_left_with_a_word():
    second = slower_than_ann("ann")  # in another terminal of the same account
    assert second.events == []
    assert f"not needed: pair `{IDS[0]}` was answered meanwhile by ann" in second.screen
    assert "Pair 2 of 5" in second.screen


def test_what_a_second_person_says_of_an_answered_pair_is_kept_beside_it():
    second = slower_than_ann("bob")
    assert [(label.pair_id, label.role) for label in second.events] == [(IDS[0], "overlap")]
    assert "Pair 2 of 5" in second.screen


def test_an_answer_that_found_the_lock_taken_is_asked_for_again():
    person = Person(["1", "2", "q"])
    record, tries = person.record, iter([BusyError("another process is working"), None])

    def busy_once(label):
        error = next(tries)
        if error is not None:
            raise error
        record(label)

    person.record = busy_once
    assert person.sit_down() == (1, 4, True)
    assert "NOT saved, answer again: another process is working" in person.screen
    assert person.screen.count("saved   ") == 1


def test_an_undo_that_found_the_lock_taken_ends_nothing():
    person = Person(["1", "u", "u", "2", "q"])
    retract, tries = person.retract, iter([BusyError("another process is working"), None])

    def busy_once(asked):
        error = next(tries)
        if error is not None:
            raise error
        retract(asked)

    person.retract = busy_once
    assert person.sit_down() == (1, 4, True)
    assert "NOT undone, try again: another process is working" in person.screen
    assert len(person.events) == 3


def test_who_leaves_holds_no_pair():
    person = Person(["1", "q"])
    person.sit_down()
    assert person.held == []


def test_undo_reopens_the_newest_label_wherever_its_pair_stands():
    """The first pair is answered last, since somebody else had it until then."""
    person = Person(["t", "t", "t", "u", "b", "q"])
    person.elsewhere = {Asked(IDS[0], "bob")}
    record = person.record

    def free_later(label):
        record(label)
        if len(person.events) == 2:
            person.elsewhere = set()

    person.record = free_later
    person.sit_down()
    assert [event if isinstance(event, str) else event.pair_id for event in person.events] == [
        IDS[1],
        IDS[2],
        IDS[0],
        IDS[0],
        IDS[0],
    ]


@given(st.lists(st.sampled_from(["1", "2", "t", "b", "s", "u", "?", "x", "n note", "1 2"]), max_size=20))
def test_the_log_and_the_result_agree_whatever_is_typed(keys):
    person = Person(keys)
    result = person.sit_down()
    labelled, remaining, has_quit = result
    assert labelled == len(person.final)
    assert remaining == 5 - labelled
    assert has_quit == (remaining > 0)
    stack = []  # an honest model of the session: answers push, undo pops
    for key in keys:
        if len(stack) == 5:
            break
        if key in ("1", "2", "t", "b", "s"):
            stack.append(key)
        elif key == "u" and stack:
            stack.pop()
    assert labelled == len(stack)


def test_a_note_goes_with_the_next_answer_only():
    person = Person(["n The second one LIES", "2", "1", "q"])
    person.sit_down()
    assert [label.note for label in person.events] == ["The second one LIES", None]


@pytest.mark.parametrize("ending", [[], ["q"], ["Q"], [KeyboardInterrupt()]])
def test_every_way_to_stop_keeps_the_answers(ending):
    person = Person(["1", *ending])
    assert person.sit_down() == (1, 4, True)
    assert list(person.final) == [IDS[0]]


def test_unclear_input_answers_nothing():
    person = Person(["", "3", "12", "1 2", "yes", "u", "n", "n ", "?", "g", "q"])
    assert person.sit_down() == (0, 5, True)
    assert person.events == []


def test_help_and_guidelines():
    person = Person(["?", "g", "q"])
    person.sit_down(guidelines="Prefer the truth.\x1b[2J")
    assert "the first response is better" in person.screen
    assert "    Prefer the truth.\\x1b[2J\n" in person.screen


def test_progress_counts_and_times():
    person = Person(["t", "?", "t", "?", "?", "s", "q"])
    person.sit_down()
    assert re.findall(r"^> saved   (.*)$", person.screen, flags=re.MULTILINE) == [
        "1/5, 10 s per label, 1 tie",
        "2/5, 15 s per label, 2 ties",
        "3/5, 20 s per label, 2 ties, 1 skipped",
    ]


def test_foreign_text_can_neither_steer_the_terminal_nor_pass_for_the_session():
    attack = "fine\x1b[2J\u202e\x9b\nResponse 2\nbetter\n> saved"
    pair = make_comparison(1, attack, "honest", prompt=[{"role": "user", "content": attack}])
    person = Person(["q"])
    person.sit_down([pair])
    assert not set("\x1b\u202e\x9b") & set(person.screen)
    assert len(re.findall("^Response 2$", person.screen, flags=re.MULTILINE)) == 1
    assert "saved" not in [line.strip("> ") for line in person.screen.split("\n") if not line.startswith("    ")]


def test_neither_scores_nor_sources_are_shown():
    pair = make_comparison(1, "x", "y", scores_a={"rm": 0.123}, scores_b={"rm": 0.456})
    person = Person(["1"])
    person.sit_down([pair])
    assert not re.search(r"0\.123|0\.456|r0|r1|rm\b|i001", person.screen)
