"""What the page is told, and what becomes of what it sends: once, by whom, and after a restart too."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from compared_pairs import make_comparison
from label_page import Answers, plain_questions, questions_about

from activedpo_cli.label.questions import Question
from activedpo_cli.label.queue import PairAnsweredError, Queue
from activedpo_cli.label.web.access import Access
from activedpo_cli.label.web.desk import Desk, UnknownPairError
from activedpo_cli.label.web.security import TurnedAwayError

NAME = "0123456789abcdef"


class Office:
    """A desk that can be closed and opened again over the same answers, as a server is."""

    def __init__(self, folder: Path, questions: list[Question], *names: str, **of_queue: Any) -> None:
        self.access = Access(b"\1" * 32, {name: name * 40 for name in names or ("ann", "bo")})
        self.people = {person.name: person for person in self.access.people}
        self.folder, self.questions, self.of_queue, self.time = folder, questions, of_queue, 0.0
        self.open()

    def open(self) -> None:
        self.answers = Answers(self.folder / "labels.jsonl")
        queue = Queue(
            self.questions,
            self.answers,
            oracle="human",
            seed=0,
            clock=lambda: self.time,
            channel="web",
            **self.of_queue,
        )
        self.desk = Desk(queue, self.questions, self.access, seed=0, clock=lambda: self.time)

    def next(self, name: str = "ann", *besides: str) -> Any:
        return self.desk.next(self.people[name], {"besides": list(besides)})["pair"]

    def answer(self, pair: str, choice: str = "tie", name: str = "ann", answer_id: str = NAME, **more: Any) -> Any:
        said = {"pair": pair, "answer_id": answer_id, "choice": choice, "seconds": 1.5, "view": "text"} | more
        return self.desk.answer(self.people[name], said)

    def undo(self, pair: str, name: str = "ann", answer_id: str = NAME) -> bool:
        return self.desk.undo(self.people[name], {"pair": pair, "answer_id": answer_id})["undone"]

    @property
    def labels(self) -> Any:
        return self.answers.log.answers()


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path, plain_questions(4))


def test_the_label_names_the_response_that_was_shown(office: Office) -> None:
    for choice in ("first", "second", "first", "second"):
        pair = office.next()
        office.answer(pair["id"], choice, answer_id=f"{NAME}-{pair['id'][:6]}", note="  why ", view="markdown")
        label = office.labels[-1]
        question = next(one for one in office.questions if one.comparison.pair_id == label.pair_id).comparison
        text = {one.response_id: one.text for one in (question.response_a, question.response_b)}[label.preferred_id]
        assert text == pair[choice]
        assert (label.annotator, label.note, label.view, label.channel, label.seconds) == (
            "ann",
            "why",
            "markdown",
            "web",
            1.5,
        )
    assert office.desk.progress()["is_done"]
    assert office.next() is None


def test_an_answer_that_is_sent_again_is_stored_once(office: Office) -> None:
    pair = office.next()["id"]
    for _ in range(2):
        assert office.answer(pair)["answered"] == 1
    office.open()
    assert office.answer(pair)["saved"]
    assert len(office.labels) == 1
    assert office.desk.answers_by == {"ann": 0, "bo": 0}


def test_an_answer_that_was_never_stored_counts_after_a_restart(office: Office) -> None:
    pair = office.next()
    office.open()
    office.answer(pair["id"], "first")
    assert office.labels[0].preferred_id is not None


def test_the_same_name_for_another_pair_is_another_answer(office: Office) -> None:
    """Else a tie would be called saved because another tie was."""
    first = office.next()["id"]
    second = office.next("ann", first)["id"]
    office.answer(first)
    office.answer(second)
    assert len(office.labels) == 2


def test_another_answer_to_the_same_pair_is_refused(office: Office) -> None:
    pair = office.next()["id"]
    office.answer(pair, "tie")
    with pytest.raises(PairAnsweredError):
        office.answer(pair, "first", answer_id=NAME[::-1])
    assert [label.outcome for label in office.labels] == ["tie"]


def test_undo_takes_back_the_answer_that_it_names_and_no_other(office: Office) -> None:
    first = office.next()["id"]
    office.answer(first)
    second = office.next()["id"]
    office.answer(second, answer_id="second-" + NAME)
    assert office.undo(second, answer_id="second-" + NAME)
    assert not office.undo(second, answer_id="second-" + NAME), "asked again, since the reply was lost"
    assert len(office.labels) == 1
    assert office.next()["id"] == second
    assert office.answer(second, answer_id="second-" + NAME)["saved"], "a repetition that was on its way all the time"
    assert len(office.labels) == 1, "changes nothing"
    office.open()
    assert office.undo(first), "also of a server that is gone"
    assert not office.labels
    assert office.desk.answers_by == {"ann": 0, "bo": 0}


def test_nobody_takes_back_what_another_person_answered(office: Office) -> None:
    pair = office.next("bo")["id"]
    office.answer(pair, name="bo")
    with pytest.raises(UnknownPairError):
        office.undo(pair, "ann")
    assert len(office.labels) == 1


def test_pairs_are_kept_for_one_person_also_after_a_restart(office: Office) -> None:
    own = office.next("ann")["id"]
    ready = office.next("ann", own)["id"]
    office.open()
    assert office.next("ann", own, ready)["prompt"] == "prompt 3"
    assert office.next("bo")["prompt"] == "prompt 4", "the others are on ann's screen"
    office.time += 1000
    assert office.next("bo")["prompt"] == "prompt 1", "until her time is over"


def test_the_page_learns_nothing_about_where_a_pair_comes_from(tmp_path: Path) -> None:
    questions = [*plain_questions(3, people=2)]
    questions[1] = Question(comparison=questions[1].comparison, role="control")
    questions[2] = Question(
        comparison=make_comparison(3, "a text", "another", scores_a={"reward": 0.25}, scores_b={"reward": 0.5}),
        role="gold",
        known_id=questions[2].comparison.response_a.response_id,
    )
    office = Office(tmp_path, questions)
    seen = []
    for _ in questions:
        pair = office.next("ann", *seen)
        assert set(pair) == {"id", "prompt", "first", "second", "kept_seconds"}
        assert len(pair["id"]) == 32
        seen.append(pair["id"])
    told = json.dumps([office.desk.welcome(office.people["ann"]), office.desk.next(office.people["ann"], {}), seen])
    for secret in ("p00000", "i001", "r0", "control", "gold", "overlap", "selected", "role", "score", "rank", "policy"):
        assert secret not in told
    assert not set(seen) & {office.next("bo")["id"]}, "nor from what others get"


def test_a_question_that_is_asked_again_looks_like_any_other(tmp_path: Path) -> None:
    office = Office(tmp_path, plain_questions(11), "ann", repeats=1)
    first = {}
    for number in range(11):
        pair = office.next()
        first[pair["prompt"]] = pair
        office.answer(pair["id"], answer_id=f"{NAME}{number}")
    assert office.desk.progress()["is_done"], "they come as it goes"
    again = office.next()
    assert not office.desk.progress()["is_done"], "but who has one before them is waited for"
    before = first[again["prompt"]]
    assert again["id"] != before["id"]
    assert (again["first"], again["second"]) == (before["second"], before["first"])
    office.answer(again["id"], "first")
    assert office.labels[-1].role == "repeat"
    assert office.desk.progress()["is_done"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"choice": "best"},
        {"choice": None},
        {"choice": ["tie"]},
        {"view": "x"},
        {"view": {}},
        {"note": 5},
        {"note": "x" * 10_001},
        {"seconds": -1},
        {"seconds": True},
        {"seconds": math.nan},
        {"seconds": math.inf},
        {"seconds": "1"},
        {"seconds": 10**400},
        {"answer_id": "short"},
        {"answer_id": None},
        {"answer_id": "x" * 65},
        {"answer_id": "../" * 8},
    ],
)
def test_what_is_no_answer_is_turned_away(office: Office, wrong: dict[str, Any]) -> None:
    pair = office.next()["id"]
    with pytest.raises(TurnedAwayError) as caught:
        office.answer(pair, **wrong)
    assert caught.value.status == 400
    assert not office.labels


@pytest.mark.parametrize("pair", ["", None, 5, "p000001/i001/r0-r1", "x" * 32, ["x"], {}])
def test_pairs_that_are_not_asked_about(office: Office, pair: Any) -> None:
    office.next()
    with pytest.raises(UnknownPairError):
        office.answer(pair)
    assert office.desk.next(office.people["ann"], {"besides": [pair]})["pair"]["prompt"] == "prompt 1"
    for besides in ("x", {"a": 1}, ["x"] * 101):
        with pytest.raises(TurnedAwayError):
            office.desk.next(office.people["ann"], {"besides": besides})


def test_lines_that_end_as_on_windows_look_like_others(tmp_path: Path) -> None:
    office = Office(tmp_path, questions_about([("a\r\nb", "x\ry", "x\ry\r\n")]))
    pair = office.next()
    assert pair["prompt"] == "a\nb"
    assert {pair["first"], pair["second"]} == {"x\\x0dy", "x\\x0dy\n"}, (
        "a lone return would cover what stands before it"
    )


def test_half_a_character_in_a_note(office: Office) -> None:
    office.answer(office.next()["id"], note="a\ud800b")
    assert office.labels[0].note == "a?b"


@contextmanager
def _failing(office: Office, error: Exception) -> Iterator[None]:
    def fail() -> None:
        raise error

    office.answers.before = fail
    yield
    office.answers.before = lambda: None


def test_an_answer_that_the_disk_does_not_take_is_not_called_saved(office: Office) -> None:
    pair = office.next()["id"]
    with _failing(office, OSError("full")), pytest.raises(OSError, match="full"):
        office.answer(pair)
    assert not office.labels
    assert office.answer(pair)["saved"]
    assert len(office.labels) == 1
