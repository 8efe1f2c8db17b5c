"""The full screen as a person uses it, by its keys; what counts is what the log has then."""

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import textual._wait
from compared_pairs import make_comparison
from hostile_text import HOSTILE, steering
from textual.events import Paste
from textual.pilot import Pilot

from activedpo_cli.base.errors import BusyError, StorageError
from activedpo_cli.base.records import Asked, Label
from activedpo_cli.label import word_differences
from activedpo_cli.label.questions import Question
from activedpo_cli.label.queue import Queue
from activedpo_cli.label.sittings import StageLeftError
from activedpo_cli.label.terminal import HELP as PLAIN_HELP
from activedpo_cli.label.tui import app as app_module
from activedpo_cli.label.tui.app import HELP, LabelApp, Sitting
from activedpo_cli.label.tui.panes import CHARACTERS_AT_ONCE, TextPane, parts, safe
from activedpo_cli.label.wording import CHOICES, KEYS

SIZES = [(60, 16), (80, 24), (200, 60)]
PAIRS = [
    make_comparison(n, f"the {n}th first text", f"the {n}th other text", prompt=f"prompt {n}") for n in range(1, 6)
]
IDS = [pair.pair_id for pair in PAIRS]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pilot asks more often whether all is drawn; it would sleep through most of these tests."""
    monkeypatch.setattr(textual._wait, "SLEEP_GRANULARITY", 0.002)
    monkeypatch.setattr(textual._wait, "SLEEP_IDLE", 0.0005)


class Person:
    """Presses keys, sees the screen, and keeps the log as the store would."""

    def __init__(self, comparisons: Any = PAIRS, *, guidelines: str | None = None, name: str = "ann") -> None:
        self.events: list[Any] = []
        self.screen_at_record: list[str] = []
        self.time = 0.0
        self.busy = 0
        self.failure: Exception | None = None
        questions = [Question(comparison=comparison) for comparison in comparisons]
        self.queue = Queue(questions, self, oracle="human", seed=0, clock=lambda: self.time, channel="tui")
        sitting = Sitting(queue=self.queue, annotator=name, guidelines=guidelines, clock=lambda: self.time)
        ticket = self.queue.next(name)
        assert ticket is not None
        self.app = LabelApp(sitting, ticket)

    @contextlib.contextmanager
    def exclusively(self):
        if self.failure:
            raise self.failure
        if self.busy:
            self.busy -= 1
            raise BusyError("another process is working")
        yield

    def answers(self):
        standing: dict[Asked, Label] = {}
        for event in self.events:
            if isinstance(event, Label):
                standing[event.asked] = event
            else:
                del standing[event]
        return list(standing.values())

    def given_as(self, answer_id):
        return None

    def record(self, label):
        self.screen_at_record.append(self.screen)
        self.events.append(label)

    def retract(self, asked):
        self.events.append(asked)

    def held_elsewhere(self):
        return set()

    def hold(self, asked):
        self.held = list(asked)

    @property
    def screen(self) -> str:
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)

    def told(self) -> list[tuple[str, str]]:
        return [(label.pair_id, label.outcome) for label in self.answers()]

    def sit(
        self,
        *keys: str,
        size: tuple[int, int] = (80, 24),
        then: Callable[[Pilot], Awaitable[None]] | None = None,
        seconds_per_key: float = 10.0,
    ) -> "Person":
        """Press keys, look at what `then` looks at, and stop where the application has not ended by itself."""

        async def sitting() -> None:
            async with self.app.run_test(size=size) as pilot:
                await pilot.pause()
                for key in keys:
                    self.time += seconds_per_key
                    await pilot.press(key)
                    await pilot.pause()
                if then:
                    await then(pilot)
                self.last = self.screen

        asyncio.run(sitting())
        return self


@pytest.mark.parametrize("size", SIZES)
def test_a_sitting_with_every_key(size):
    person = Person(guidelines="Prefer the truth.")
    keys = ["1", "u", "2", "n", *"lies", "enter", "t", "?", "q", "g", "g", "d", "d", "tab", "down", "B", "s", "q"]
    person.sit(*keys, size=size)
    assert person.told() == list(zip(IDS, ["chosen", "tie", "both_bad", "skip"], strict=False))
    assert [label.note for label in person.answers()] == [None, "lies", None, None]
    assert {(label.annotator, label.channel, label.view) for label in person.answers()} == {("ann", "tui", "text")}
    assert [event for event in person.events if isinstance(event, Asked)] == [Asked(IDS[0], "ann")]
    assert person.app.return_value is False


@pytest.mark.parametrize(("size", "key"), zip(SIZES, "121", strict=True))
def test_the_label_names_the_response_that_was_shown_there(size, key):
    shown = []

    async def look(pilot):
        for _ in PAIRS:
            shown.append([str(pilot.app.screen.query_one(f"#{name} .text").content) for name in ("first", "second")])
            person.time += 10
            await pilot.press(key)
            await pilot.pause()

    person = Person()
    person.sit(size=size, then=look)
    texts = {side.response_id: side.text for pair in PAIRS for side in (pair.response_a, pair.response_b)}
    assert [texts[label.preferred_id] for label in person.answers()] == [sides[int(key) - 1] for sides in shown]
    assert {sides[0].split()[-2] for sides in shown} == {"first", "other"}, "sides are shuffled"


@pytest.mark.parametrize(
    ("size", "is_beside"), [((60, 16), False), ((99, 24), False), ((100, 24), True), ((200, 60), True)]
)
def test_responses_stand_beside_each_other_where_there_is_room(size, is_beside):
    async def look(pilot):
        first, second = (pilot.app.screen.query_one(name).region for name in ("#first", "#second"))
        assert (first.y == second.y, first.x == second.x) == (is_beside, not is_beside)
        assert pilot.app.screen.query_one("#prompt").region.height <= max(3, size[1] * 0.3)

    person = Person([make_comparison(1, prompt="long " * 2000)]).sit(size=size, then=look)
    question = ("Which response is better?",) if size[0] >= 99 else ()
    for words in (
        "Prompt of pair 1 of 1",
        "Response 1",
        "Response 2",
        "answered   0/1",
        "1 first",
        "? help",
        *question,
    ):
        assert words in person.last.replace("\N{NO-BREAK SPACE}", " ")


def test_the_terminal_may_change_its_size_at_any_time():
    async def change(pilot):
        for columns, rows in [(200, 60), (60, 16), (20, 4), (1, 1), (100, 30)]:
            await pilot.resize_terminal(columns, rows)
            person.time += 10
            await pilot.press("t")
            await pilot.pause()

    person = Person()
    person.sit(then=change)
    assert person.told() == [(pair, "tie") for pair in IDS]


def test_an_answer_is_stored_before_the_screen_says_so():
    person = Person().sit("1", "t")
    assert ["saved   1/5" in screen for screen in person.screen_at_record] == [False, True]
    assert not any("saved   2/5" in screen for screen in person.screen_at_record)
    assert "saved   2/5" in person.last


def test_what_cannot_be_stored_ends_the_sitting_with_the_reason_and_without_a_word_of_the_library(capsys):
    person = Person()
    person.record = lambda label: (_ for _ in ()).throw(StorageError("the disk is full"))
    with pytest.raises(StorageError, match="full"):
        person.sit("1")
    assert isinstance(person.app.failure, StorageError)
    assert not person.app._exit_renderables
    assert capsys.readouterr() == ("", "")


def test_a_stage_that_was_closed_meanwhile_ends_the_sitting():
    person = Person()

    async def closed(pilot):
        person.failure = StageLeftError("closed")
        await pilot.press("1")
        await pilot.pause()

    with pytest.raises(StageLeftError):
        person.sit("t", then=closed)
    assert person.told() == [(IDS[0], "tie")]


def test_an_answer_that_found_the_lock_taken_is_asked_for_again():
    person = Person()

    async def busy(pilot):
        person.busy = 1
        await pilot.press("1")
        await pilot.pause()
        assert "NOT saved, answer again: another process is working" in person.screen
        assert not person.events
        person.time += 10
        await pilot.press("2")

    person.sit(then=busy)
    assert person.told() == [(IDS[0], "chosen")]


def test_a_next_pair_that_could_not_be_had_comes_later(monkeypatch):
    monkeypatch.setattr("activedpo_cli.label.tui.app.ASKS_AGAIN_SECONDS", 0.01)
    person = Person()
    record = person.record

    def record_and_be_busy(label):
        record(label)
        person.busy = 1

    person.record = record_and_be_busy

    async def wait(pilot):
        await pilot.press("1")
        for _ in range(100):
            await pilot.pause(0.01)
            if "pair 2 of 5" in person.screen:
                return
        raise AssertionError(person.screen)

    person.sit(then=wait)
    assert "saved   1/5" in person.last


def test_a_pair_that_was_answered_meanwhile_is_left_with_a_word():
    person = Person()

    async def elsewhere(pilot):
        label = Label(pair_id=IDS[0], outcome="tie", preferred_id=None, oracle="human", annotator="ann")
        person.events.append(label)
        await pilot.press("1")
        await pilot.pause()

    person.sit(then=elsewhere)
    assert f"not needed: pair `{IDS[0]}` was answered meanwhile" in " ".join(person.last.split())
    assert "pair 2 of 5" in person.last
    assert person.told() == [(IDS[0], "tie")]


def test_a_key_that_is_held_answers_one_pair():
    """A terminal tells no repetition from a press: the first comes after a while, the others quickly."""
    held = ["1"] * 40

    async def hold(pilot):
        for number, key in enumerate(held):
            person.time += 0.5 if number == 1 else 0.033
            await pilot.press(key)
        await pilot.pause()
        assert len(person.events) == 1
        assert "1 was not taken again" in person.screen
        person.time += 1.0
        await pilot.press("1")

    person = Person()
    person.sit(then=hold)
    assert person.told() == [(IDS[0], "chosen"), (IDS[1], "chosen")]


def test_a_key_that_came_before_its_pair_was_on_the_screen_answers_nothing():
    async def type_ahead(pilot):
        screen = pilot.app.screen
        with pilot.app.batch_update():
            for key in ("1", "t", "b"):
                person.time += 10
                pilot.app.simulate_key(key)
            await asyncio.sleep(0.05)
        assert screen.is_current

    person = Person()
    person.sit(then=type_ahead)
    assert len(person.events) == 1


def test_undo_brings_pair_and_note_back():
    person = Person().sit("n", *"why", "enter", "1", "u", "2")
    assert [(label.outcome, label.note) for label in person.answers()] == [("chosen", "why")]
    assert len({label.preferred_id for label in person.events if isinstance(label, Label)}) == 2


def test_nothing_is_undone_that_was_not_given_here():
    assert "nothing of yours to undo" in Person().sit("u").last


def test_the_last_answer_can_be_taken_back_before_the_sitting_ends():
    person = Person(PAIRS[:2])
    person.sit("1", "b", "u", "t", "1", "enter")
    assert person.told() == list(zip(IDS, ["chosen", "tie"], strict=False))
    assert person.app.return_value is True


@pytest.mark.parametrize(
    ("before", "key"),
    [([], "q"), ([], "ctrl+c"), (["n", "x"], "ctrl+c"), (["?"], "ctrl+q"), (["n", "x", "enter"], "q")],
)
def test_every_way_to_quit_keeps_the_answers(key, before):
    person = Person().sit("1", *before, key)
    assert person.told() == [(IDS[0], "chosen")]
    assert not person.app.return_value


def test_escape_and_other_keys_do_nothing():
    person = Person().sit("escape", "n", "escape", *"1t", "enter", "x", "3", "enter", "f1", "ctrl+p", "b")
    assert [(label.outcome, label.note) for label in person.answers()] == [("both_bad", "1t")]


def test_keys_typed_over_a_text_answer_nothing():
    assert Person(guidelines="one").sit("?", "1", "t", "q", "g", "2", "s", "enter").events == []


def test_both_responses_scroll_together_and_tab_lets_one():
    async def look(pilot):
        prompt, first, second = (
            pilot.app.screen.query_one(f"#{name}", TextPane) for name in ("prompt", "first", "second")
        )
        places = []
        for key in ("down", "tab", "down", "tab", "down", "tab", "down", "tab", "pagedown", "home", "end"):
            await pilot.press(key)
            await pilot.pause()
            places.append((prompt.scroll_y, first.scroll_y, second.scroll_y))
        downs = [place for place, key in zip(places, ["d", "t"] * 4, strict=False) if key == "d"]
        assert downs == [(0, 1, 1), (0, 2, 1), (0, 2, 2), (1, 2, 2)]
        assert places[-2] == (1, 0, 0)
        assert places[-1] == (1, first.max_scroll_y, second.max_scroll_y)

    Person([make_comparison(1, "a\n" * 90, "b\n" * 90, prompt="p\n" * 90)]).sit(then=look)


def test_prompts_of_several_messages_show_who_says_what():
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?\n[assistant]\nforged"}]
    person = Person([make_comparison(1, prompt=messages)])

    async def look(pilot):
        content = pilot.app.screen.query_one("#prompt .text").content
        marked = [content.plain[span.start : span.end] for span in content.spans]
        assert marked == ["[system]", "[user]"], "a forged line is no heading"

    person.sit(then=look, size=(80, 60))
    assert re.search(r"\[system\] *\n *Be kind\.", person.last)


def test_words_that_differ_are_marked_on_request():
    pair = make_comparison(1, "the cat sat on the mat", "the dog sat on the mat")

    async def look(pilot):
        for name in ("first", "second"):
            content = pilot.app.screen.query_one(f"#{name} .text").content
            assert [content.plain[span.start : span.end] in ("cat", "dog") for span in content.spans] == [True]
            assert "underline" in str(content.spans[0].style)
        person.time += 10
        await pilot.press("1")

    person = Person([pair])
    person.sit("d", then=look)
    assert person.answers()[0].view == "differences"


@pytest.mark.parametrize(
    "pair", [make_comparison(1, "one two three", "four five six"), make_comparison(1, "a " * 3001, "a " * 3002)]
)
def test_marks_that_would_say_nothing_are_not_made(pair):
    person = Person([pair]).sit("d", "1")
    assert person.answers()[0].view == "text"


def test_an_answer_says_that_words_were_marked_only_where_they_were(monkeypatch):
    calls = []
    monkeypatch.setattr(
        app_module, "differing_words", lambda *texts: calls.append(texts) or word_differences.differing_words(*texts)
    )
    alike = [make_comparison(n, "the cat sat on the mat", "the dog sat on the mat") for n in (1, 3)]
    person = Person([alike[0], make_comparison(2, "one two three", "four five six"), alike[1]]).sit("d", "1", "2", "1")
    assert [label.view for label in person.answers()] == ["differences", "text", "differences"]
    assert len(calls) == 3, "once a pair"


def test_neither_scores_nor_sources_nor_roles_are_shown():
    pair = make_comparison(1, "x", "y", scores_a={"rm": 0.123}, scores_b={"rm": 0.456})
    person = Person([pair])
    person.sit("?", "q", "d")
    assert not re.search(r"0\.123|0\.456|r0|r1|rm\b|i001|p000001|selected|control|gold|policy", person.last)


@pytest.mark.parametrize("size", [(60, 16), pytest.param((80, 24), marks=pytest.mark.slow)])
def test_hostile_text_neither_steers_the_terminal_nor_ends_the_sitting(size):
    """In prompts, responses, names, guidelines and notes: one sitting over all of the corpus."""
    texts = list(HOSTILE.values())
    pairs = [
        make_comparison(n, text, texts[n - 1] + ".", prompt=text if n % 2 else [{"role": text, "content": text}] * 2)
        for n, text in enumerate(texts)
    ]
    everything = "\n".join(texts)
    person = Person(pairs, guidelines=everything, name=everything.encode("utf-8", "ignore").decode())

    async def sit(pilot):
        for number, text in enumerate(texts):
            assert not steering(person.screen), repr(text)
            if number % 6 == 0:
                await pilot.press("n")
                pilot.app.screen.focused.post_message(Paste(text))
                await pilot.pause()
                assert not steering(person.screen), repr(text)
                await pilot.press("enter")
            person.time += 10
            await pilot.press("d", "1")
            await pilot.pause()
        for key in ("g", "?"):
            await pilot.press("u", key)
            await pilot.pause()
            assert not steering(person.screen)
            await pilot.press("q", "1")

    person.sit(then=sit, size=size)
    notes = [label.note for label in person.answers()]
    assert not steering("".join(note or "" for note in notes))
    assert notes[0] == "\\x1b[2J\\x1b[Hgone"
    assert len(person.answers()) >= len(texts) - 2


def test_all_lines_of_a_pasted_note_are_kept():
    async def paste(pilot):
        pilot.app.screen.focused.post_message(Paste("one\ntwo\tthree"))
        await pilot.pause()
        await pilot.press("enter", "1")

    assert Person().sit("n", then=paste).answers()[0].note == "one two three"


@pytest.mark.parametrize("text", ["", "a", "word " * 12_000, "x" * 50_000, "line\n" * 9_000, "\n" * 45_000])
def test_the_parts_of_a_long_text_are_the_text(text):
    several = [part.plain for part in parts(safe(text))]
    assert "".join(several) == text
    assert max(map(len, several)) <= CHARACTERS_AT_ONCE
    assert len(several) == 1 or min(map(len, several[:-1])) >= CHARACTERS_AT_ONCE - 1000


def test_the_rest_of_a_long_text_comes_on_demand():
    text = "".join(f"line {n}\n" for n in range(6_000))

    async def look(pilot):
        pane = pilot.app.screen.query_one("#first", TextPane)
        shown = []
        for _ in range(4):
            shown.append("".join(str(part.content) for part in pane.query(".text, .rest")))
            await pilot.press("r")
            await pilot.pause()
        assert [len(part) <= CHARACTERS_AT_ONCE * number for number, part in enumerate(shown, 1)] == [True] * 4
        assert shown[-1].rstrip(".") == text
        assert not pane.has_more
        await pilot.press("1")

    person = Person([make_comparison(1, text, text + "."), PAIRS[1]])
    person.sit(then=look, size=(200, 60))
    assert "all of these" not in person.last
    assert len(person.events) == 1


@pytest.mark.slow
def test_200_kilobytes_open_in_two_seconds(capsys):
    """Of time on a core, from making the application to a screen that shows them; printed for who runs it by name."""
    pairs = [make_comparison(1, "some words here\n" * 12_500, "x" * 200_000, prompt="p " * 100_000)]
    person = Person(pairs)
    start = time.process_time()

    async def look(pilot):
        opened.append(time.process_time() - start)
        await pilot.press("pagedown")
        opened.append(time.process_time() - start - opened[0])

    opened: list[float] = []
    person.sit(then=look, size=(200, 60))
    with capsys.disabled():
        print(f"\n200 kB a text: open in {opened[0]:.2f} s, a key in {opened[1] * 1000:.0f} ms")
    assert opened[0] < 2


def test_one_table_of_keys_for_line_and_screen():
    """Each key once, and every one explained in both helps."""
    names = [key.key for key in KEYS]
    assert len(set(names)) == len(names)
    assert CHOICES == {"1": "first", "2": "second", "t": "tie", "b": "both_bad", "s": "skip"}
    for key in KEYS:
        assert f"{key.key:<8} {key.meaning}" in HELP
        assert f"{key.typed or key.key:<8} {key.meaning}" in PLAIN_HELP


def test_at_eighty_columns_the_question_stands_there_and_no_line_of_the_help_is_broken():
    person = Person([make_comparison(1)]).sit(size=(80, 24))
    assert "Which response is better?" in person.last.replace("\N{NO-BREAK SPACE}", " ")
    assert max(map(len, HELP.split("\n"))) <= 76
