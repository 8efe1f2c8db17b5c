"""People label in a real browser: by keys alone, on a telephone, without a connection, in several tabs."""

import contextlib
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hostile_text import HOSTILE, steering
from label_page import Served, Watched, chromium, plain_questions, questions_about, served

from activedpo_cli.base.display import display_text
from activedpo_cli.label.web.security import door_for

pytestmark = pytest.mark.whole

GUIDELINES = "# What counts\n\n- **true** before well written\n"
ELEMENTS = {
    *("P", "UL", "OL", "LI", "BLOCKQUOTE", "EM", "S", "STRONG", "CODE", "PRE", "HR", "BR", "MARK"),
    *("TABLE", "THEAD", "TBODY", "TR", "TH", "TD"),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@contextmanager
def watched(browser: Any, page: Served, name: str = "ann", **options: Any) -> Iterator[Watched]:
    found = Watched(browser, page.address(name), **options)
    try:
        found.wait_for_pair(1)
        yield found
    finally:
        found.close()


def label_all(person: Watched, page: Served, number: int) -> list[dict[str, str]]:
    """Answer so many pairs by keys alone; returns what was on the screen at each."""
    shown = []
    for place in range(number):
        shown.append(person.pair_number(place + 1))
        if place == 3:
            person.press("n")
            person.page.keyboard.type("1 is my note")
            person.press("Escape")
        person.press("12tbs"[place % 5] if place % 10 else "1")
    person.wait_for_text("Everything is answered")
    return shown


@pytest.mark.parametrize("width", [1280, 360])
def test_a_person_labels_fifty_pairs_by_keys_alone(browser: Any, tmp_path: Path, width: int) -> None:
    with served(tmp_path, plain_questions(50)) as page, watched(browser, page, width=width, height=740) as person:
        person.page.mouse.move = None  # nothing here needs one
        shown = label_all(person, page, 50)
        assert person.text("status") == "saved 50 of 50"
        assert not person.complaints
        assert {url.split("#")[0].rstrip("/").rsplit(":", 1)[1].split("/")[0] for url in person.requests} == {
            str(page.port)
        }
        assert all(url.startswith("http://127.0.0.1:") for url in person.requests)
        waits = person.page.evaluate("window.waits")
    texts = {
        response.response_id: response.text
        for question in plain_questions(50)
        for response in (question.comparison.response_a, question.comparison.response_b)
    }
    assert len(page.labels) == len(page.events) == 50
    for place, (label, screen) in enumerate(zip(page.labels, shown, strict=True)):
        key = "12tbs"[place % 5] if place % 10 else "1"
        assert screen["prompt"] == f"prompt {place + 1}"
        expected = {"1": screen["first"], "2": screen["second"]}.get(key)
        assert texts.get(label.preferred_id) == expected
        assert label.outcome == {"t": "tie", "b": "both_bad", "s": "skip"}.get(key, "chosen")
        assert label.seconds < 60
    assert [label.note for label in page.labels if label.note] == ["1 is my note"]
    print(f"median from key to next pair at {width} px: {statistics.median(waits):.1f} ms, most {max(waits):.0f} ms")
    assert statistics.median(waits) < 400, "a lax bound for a busy machine"


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 360])
def test_the_next_pair_is_there_within_a_tenth_of_a_second(browser: Any, tmp_path: Path, width: int) -> None:
    long = [(f"prompt {n}", f"one of {n} " * 400, f"other of {n} " * 400) for n in range(50)]
    with served(tmp_path, questions_about(long)) as page, watched(browser, page, width=width) as person:
        label_all(person, page, 50)
        waits = person.page.evaluate("window.waits")
    print(f"median at {width} px with 4,000 characters a response: {statistics.median(waits):.1f} ms")
    assert statistics.median(waits) < 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, tmp_path: Path, scheme: str) -> None:
    pytest.importorskip("axe_core_python")
    axe = (files("axe_core_python") / "axe.min.js").read_text()
    texts = [
        (f"# Prompt {n}\n\n7. seventh", f"> one **of** `{n}`\n\n|a|\n|-|\n|b|", f"> other **of** `{n}`")
        for n in range(2)
    ]
    with served(tmp_path, questions_about(texts), guidelines=GUIDELINES) as page:
        width = 360 if scheme == "dark" else 1280
        with watched(browser, page, width=width, color_scheme=scheme, bypass_csp=True) as person:
            person.page.evaluate(axe)

            def look(what: str) -> None:
                found = person.page.evaluate("axe.run().then(found => found.violations)")
                serious = [one for one in found if one["impact"] in ("serious", "critical")]
                assert not serious, (what, [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious])

            person.press("m")
            person.wait("document.querySelectorAll('#first.markdown').length == 1")
            person.press("n", "x", "Escape")
            look("a pair as Markdown, with a note")
            assert person.page.evaluate("document.querySelector('main ol').start") == 7
            person.press("d")
            person.wait("document.querySelectorAll('#first mark').length > 0")
            look("differences")
            person.press("?")
            look("help")
            person.press("Escape", "g")
            look("guidelines")
            person.press("Escape", "1")
            person.wait_for_pair(2)
            person.press("1")
            person.wait_for_text("Everything is answered")
            look("the end")


def test_hostile_text_makes_no_node_and_no_request(browser: Any, tmp_path: Path) -> None:
    every = list(HOSTILE.values())
    image = "![x](http://127.0.0.1:1/seen.png) <img src='http://127.0.0.1:1/seen.png'> [a](javascript:alert(1))"
    texts = [("\n".join(every), "\n\n".join(every), "\n\n".join([*every, image]))]
    texts += [(text, f"{text} one two three", f"one two three {text} four") for text in (image, *every[::12])]
    name = HOSTILE["script"] + HOSTILE["clears"].replace(",", "")
    guidelines = "\n\n".join([*every, image])
    with contextlib.ExitStack() as stack:
        page = stack.enter_context(served(tmp_path, questions_about(texts), name, guidelines=guidelines))
        with watched(browser, page, name) as person:
            dialogs: list[Any] = []
            person.page.on("dialog", lambda dialog: dialogs.append(dialog.dismiss()))
            skeleton = person.page.evaluate("document.querySelectorAll('*').length")
            assert person.text("who") == "You label as " + display_text(name)
            for place, (prompt, first, second) in enumerate(texts):
                person.wait_for_pair(place + 1)
                assert person.text("prompt") == display_text(prompt).replace("\r", "")
                assert {person.text("first"), person.text("second")} == {display_text(first), display_text(second)}
                if place:
                    person.press("t")
                    continue
                assert person.page.evaluate("document.querySelectorAll('*').length") == skeleton
                for view, sign in (("m", "#first.markdown"), ("d", "#responses mark")):
                    person.press(view)
                    person.wait(f"document.querySelectorAll('{sign}').length > 0")
                    for part in ("prompt", "first", "second"):
                        inside = f"[...document.querySelectorAll('#{part} *')]"
                        assert set(person.page.evaluate(f"{inside}.map(node => node.tagName)")) <= ELEMENTS
                        own = person.page.evaluate(f"{inside}.flatMap(node => [...node.attributes].map(a => a.name))")
                        assert set(own) <= {"class"}
                        assert not steering(person.text(part))
                    person.press(view)
                person.press("g")
                assert (
                    set(
                        person.page.evaluate("[...document.querySelectorAll('#guidelines-text *')].map(n => n.tagName)")
                    )
                    <= ELEMENTS
                )
                assert not steering(person.text("guidelines-text"))
                person.press("Escape", "n")
                person.page.evaluate("text => { document.getElementById('note').value = text; }", HOSTILE["script"])
                person.press("Escape", "t")
            person.wait_for_text("Everything is answered")
            assert not person.complaints
            assert not dialogs
            assert {url.split("/")[2] for url in person.requests} == {f"127.0.0.1:{page.port}"}
    assert page.labels[0].note == HOSTILE["script"]
    assert page.labels[0].annotator == name


def test_answers_without_a_connection_wait_and_arrive_once(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(6)) as page, watched(browser, page) as person:
        person.answer("1")
        person.wait_for_text("saved 1 of 6")
        person.wait("document.body.dataset.unsent == 0")
        person.page.wait_for_timeout(200)  # until the next pair is ready
        person.context.set_offline(True)
        person.answer("2")
        person.press("t")
        person.wait_for_text("Not saved yet: 2 answers wait in this page. No connection; trying again.")
        assert len(page.labels) == 1
        person.press("1", "u")
        person.context.set_offline(False)
        person.wait_for_text("taken back; 2 of 6 are saved")
        person.wait("document.getElementById('waiting').hidden")
        person.wait("document.getElementById('prompt').textContent == 'prompt 3'")  # undo waited for both
        for number in range(3, 7):
            person.wait(f"document.getElementById('prompt').textContent == 'prompt {number}'")
            person.press("b")
        person.wait_for_text("Everything is answered")
    assert [label.outcome for label in page.labels] == ["chosen", "chosen", *["both_bad"] * 4]
    assert len(page.events) == 6 + 2


def test_an_undo_that_waits_takes_back_the_answer_that_was_meant(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(4)) as page, watched(browser, page) as person:
        person.page.wait_for_timeout(200)  # until the next pair is ready
        person.context.set_offline(True)
        person.answer("1")
        person.press("u", "2")
        person.wait_for_text("First your last answer is taken back, once everything is saved.")
        person.context.set_offline(False)
        person.wait_for_text("taken back; 0 of 4 are saved")
        person.wait("document.getElementById('prompt').textContent == 'prompt 1'")
    assert [event.label is None for event in page.events] == [False, True]


def test_an_answer_whose_reply_is_lost_is_stored_once(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(3)) as page, watched(browser, page) as person:
        lost = []

        def lose(route: Any) -> None:
            if len(lost) < 2:
                lost.append(route.fetch())  # the server gets it
                route.abort()
            else:
                route.continue_()

        person.page.route("**/api/answer", lose)
        person.answer("1")
        person.wait_for_text("saved 1 of 3")
        assert len(lost) == 2
    assert len(page.events) == 1


@pytest.mark.parametrize("status", [200, 404])
def test_what_a_proxy_says_of_an_answer_takes_it_away_from_no_page(browser: Any, tmp_path: Path, status: int) -> None:
    with served(tmp_path, plain_questions(3)) as page, watched(browser, page) as person:
        says: list[Any] = [{"json": {"error": "no route", "message": "no route"}}, {"body": "<h1>no route</h1>"}]
        person.page.route(
            "**/api/answer",
            lambda route: route.fulfill(status=status, **says.pop()) if says else route.continue_(),
        )
        person.answer("1")
        person.wait_for_text("saved 1 of 3")
    assert len(page.events) == 1


def test_answers_that_were_not_sent_survive_a_reload(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(4)) as page, watched(browser, page) as person:
        person.page.route("**/api/answer", lambda route: route.abort())
        person.page.wait_for_timeout(200)
        person.answer("1")
        person.wait_for_text("Not saved yet: 1 answer waits in this page.")
        person.page.unroute("**/api/answer")
        person.page.reload()
        person.wait_for_text("saved 1 of 4")
        person.wait_for_pair(1)
        assert person.text("prompt") == "prompt 2", "what was on the screen comes again"
        assert "#" not in person.page.url
    assert len(page.labels) == 1


def test_a_held_key_answers_one_pair(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(6)) as page, watched(browser, page) as person:
        for _ in range(5):
            person.page.keyboard.down("1")
        person.page.keyboard.up("1")
        person.wait_for_pair(2)
        person.wait_for_text("saved 1 of 6")
        person.page.dblclick("button[data-action=second]")
        person.wait_for_text("saved 2 of 6")
        person.page.wait_for_timeout(100)
    assert len(page.labels) == 2


def test_keys_that_are_no_answers(browser: Any, tmp_path: Path) -> None:
    """With modifiers, in a note, in a dialog, while an input method composes."""
    with served(tmp_path, plain_questions(9), guidelines=GUIDELINES) as page, watched(browser, page) as person:
        person.press("Control+1", "Alt+1", "Meta+1", "x", "Enter", "Escape", "9")
        person.press("g", "1", "2")
        assert person.page.evaluate("document.querySelector('dialog[open] li strong').textContent") == "true"
        person.press("Escape", "n", "1", "t", "Escape")
        assert person.page.input_value("#note") == "1t"
        compose = "document.dispatchEvent(new KeyboardEvent('keydown', {key: '1', isComposing: true, bubbles: true}))"
        person.page.evaluate(compose)
        assert person.page.evaluate("document.body.dataset.unsent || 0") in (0, "0")
        typed = {"&": "Digit1", "т": "KeyT", "T": "KeyT", "2": "Numpad2"}
        for number, (key, code) in enumerate(typed.items(), start=1):
            person.page.evaluate(
                f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', code: '{code}', bubbles: true}}))"
            )
            person.wait_for_pair(number + 1)
        person.wait_for_text("saved 4 of 9")
    assert [label.outcome for label in page.labels] == ["chosen", "tie", "tie", "chosen"]


def test_keys_can_be_changed_and_switched_off(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(9)) as page, watched(browser, page) as person:
        person.press("?")
        for key, said in (("2", "is the key for"), ("j", "")):
            person.page.focus("#key-first")
            person.press(key, "Tab")
            assert said in person.text("key-fault")
        person.press("Escape", "1", "j")
        person.wait_for_pair(2)
        assert person.page.get_attribute("button[data-action=first]", "aria-keyshortcuts") == "j"
        person.page.reload()
        person.wait_for_pair(1)
        person.press("j")
        person.wait_for_pair(2)
        person.press("?")
        person.page.focus("#keys-on")
        person.press("Space", "Escape", "j", "2", "t", "?")
        assert person.page.get_attribute("button[data-action=first]", "aria-keyshortcuts") is None
        assert not person.page.evaluate("document.querySelector('dialog[open]')")
        person.page.focus("button[data-action=tie]")
        person.press("Enter")
        person.wait_for_pair(3)
        person.wait_for_text("saved 3 of 9")
    assert [label.outcome for label in page.labels] == ["chosen", "chosen", "tie"]


def test_taking_back_after_a_moment_without_connection_at_the_end(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(2)) as page, watched(browser, page) as person:
        person.answer("1")
        person.press("1")
        person.wait_for_text("Everything is answered")
        person.page.route("**/api/next", lambda route: route.abort())
        person.wait_for_text("Labelling has ended")
        person.page.unroute("**/api/next")
        person.press("u")
        person.wait_for_pair(3)
        person.press("t")
        person.wait_for_text("Everything is answered")
    assert [label.outcome for label in page.labels] == ["chosen", "tie"]


def test_a_note_comes_back_with_the_answer_that_is_taken_back(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(3)) as page, watched(browser, page) as person:
        person.press("n")
        person.page.keyboard.type("made up")
        person.press("Escape")
        person.answer("1")
        person.wait_for_text("saved 1 of 3")
        assert not person.page.input_value("#note")
        person.answer("u")
        assert person.text("prompt") == "prompt 1"
        assert person.page.is_visible("#note")
        person.answer("2")
        assert not person.page.is_visible("#note")
        person.wait_for_text("saved 1 of 3")
    assert [label.note for label in page.labels] == ["made up"]
    assert len(page.events) == 3


def test_undo_where_the_browser_keeps_nothing_more(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(4)) as page, watched(browser, page) as person:
        person.answer("1")
        person.wait_for_text("saved 1 of 4")
        person.page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full'); }; }")
        person.answer("t")
        person.wait_for_text("saved 2 of 4")
        person.press("u")
        person.wait_for_text("taken back; 1 of 4 are saved")
    assert [label.outcome for label in page.labels] == ["chosen"], "the last answer is the one that is taken back"


def test_undo_of_an_answer_that_is_of_no_use_takes_back_no_other(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(6)) as page, watched(browser, page) as person:
        person.answer("1")
        person.wait_for_text("saved 1 of 6")
        held: list[Any] = []
        person.page.route("**/api/answer", lambda route: held.append(route))
        person.press("1", "u")
        person.wait_for_text("Undo waits")
        while not held:  # the page says so before the request is there
            person.page.wait_for_timeout(10)
        held[0].fulfill(status=404, json={"error": "not asked about", "run": page.access.run_id})
        person.wait_for_text("1 answer could not be used")
        person.page.wait_for_timeout(100)
    assert len(page.events) == 1


def test_an_enter_key_that_is_held_presses_a_button_once(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(6)) as page, watched(browser, page) as person:
        for number in range(1, 4):
            person.answer("1")
            person.wait_for_text(f"saved {number} of 6")
        person.page.focus("button[data-action=undo]")
        for _ in range(12):
            person.page.keyboard.down("Enter")
            person.page.wait_for_timeout(20)
        person.page.keyboard.up("Enter")
        person.wait_for_text("taken back; 2 of 6 are saved")
    assert len(page.labels) == 2


def test_one_person_in_two_tabs(browser: Any, tmp_path: Path) -> None:
    shown = "document.getElementById('prompt').textContent"
    with served(tmp_path, plain_questions(6)) as page, watched(browser, page) as person:
        other = person.open(f"http://127.0.0.1:{page.port}/")
        person.wait_for_pair(1, other)
        assert person.text("prompt") == other.evaluate(shown) == "prompt 1"
        person.answer("1")
        person.wait(f"{shown} == 'prompt 2'", other)
        while not all("Everything is answered" in tab.inner_text("body") for tab in (person.page, other)):
            for tab in (person.page, other):
                tab.keyboard.press("t")
            person.page.wait_for_timeout(20)
    assert len(page.labels) == len(page.events) == 6
    assert page.labels[0].outcome == "chosen"


def test_one_person_in_two_browsers(browser: Any, tmp_path: Path) -> None:
    with (
        served(tmp_path, plain_questions(2)) as page,
        watched(browser, page) as person,
        watched(browser, page) as other,
    ):
        person.answer("1")
        person.wait_for_text("saved 1 of 2")
        other.answer("t")
        other.wait_for_text("You had answered this pair before; that answer stands. 1 of 2 are saved")
    assert [label.outcome for label in page.labels] == ["chosen"]


def test_two_people_in_one_browser_answer_in_their_own_names(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(4), "ann", "bo") as page, watched(browser, page) as person:
        bo = person.open(page.address("bo"))
        person.wait_for_pair(1, bo)
        assert person.text("prompt") != bo.evaluate("document.getElementById('prompt').textContent")
        person.answer("1")
        bo.keyboard.press("2")
        person.wait_for_text("saved", bo)
        person.wait_for_text("saved")
        person.page.reload()
        person.wait_for_text("You label as ann")
        for tab in (person.page, bo):
            tab.evaluate("document.body.dataset.shown")
        person.wait_for_pair(1)
        person.press("t")
        bo.keyboard.press("b")
        person.wait_for_text("Everything is answered")
    assert sorted((label.annotator, label.outcome) for label in page.labels) == [
        ("ann", "chosen"), ("ann", "tie"), ("bo", "both_bad"), ("bo", "chosen"),
    ]  # fmt: skip


def test_what_is_with_others_comes_when_they_take_it_back(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(2), "ann", "bo") as page, watched(browser, page) as person:
        person.page.wait_for_timeout(200)
        bo = person.open(page.address("bo"))
        person.wait_for_text("The last pairs are with other people", bo)
        person.page.close()
        page.desk._queue.leave("ann")
        person.wait_for_pair(1, bo)


def test_who_has_nothing_left_hears_how_far_the_others_are(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(1, people=2), "ann", "bo") as page, watched(browser, page) as person:
        person.press("1")
        person.wait_for_text("Nothing more for you at the moment.")
        bo = person.open(page.address("bo"))
        person.wait_for_pair(1, bo)
        bo.keyboard.press("2")
        person.wait_for_text("Everything is answered")
        assert person.text("status") == "saved 2 of 2"


@pytest.mark.parametrize("width", [1280, 360])
def test_texts_without_spaces_and_long_ones_stay_in_their_place(browser: Any, tmp_path: Path, width: int) -> None:
    texts = [("x" * 1000, "word " * 40_000, "y" * 200_000), ("x", "y", "z")]
    with served(tmp_path, questions_about(texts)) as page, watched(browser, page, width=width) as person:
        assert person.page.evaluate("document.documentElement.scrollWidth") <= width
        lengths = sorted(len(person.text(part)) for part in ("first", "second"))
        assert lengths == [200_000, 200_000]
        columns = person.page.evaluate(
            "['first', 'second'].map(id => document.getElementById(id).getBoundingClientRect().top)"
        )
        assert (columns[0] == columns[1]) == (width == 1280), "side by side, or one below the other"
        small = "[...document.querySelectorAll('button')].filter(b => b.offsetHeight && b.offsetHeight < 44).length"
        assert person.page.evaluate(small) == 0
        person.press("m")
        person.wait_for_text("Shown as plain text: Markdown is shown up to 20,000 characters")
        person.press("1")
        person.wait_for_pair(2)
        person.wait("document.querySelectorAll('#first.markdown').length == 1")
        person.press("2")
        person.wait_for_text("Everything is answered")
        assert person.page.evaluate("scrollY") == 0
    assert [label.view for label in page.labels] == ["text", "markdown"], "what was seen, not what was asked for"


def test_a_view_that_could_not_be_had_beforehand_is_asked_for_again(browser: Any, tmp_path: Path) -> None:
    questions = questions_about([(f"# {n}", "a", "b") for n in range(3)])
    with served(tmp_path, questions) as page, watched(browser, page) as person:
        person.press("m")
        person.wait("document.querySelectorAll('#prompt.markdown').length == 1")
        person.page.wait_for_timeout(200)
        fails = [True]
        person.page.route("**/api/look", lambda route: route.abort() if fails and fails.pop() else route.continue_())
        person.answer("1")  # while the third is made ready, whose view can't be had
        person.wait_for_text("saved 1 of 3")
        person.page.wait_for_timeout(200)
        assert not fails
        person.page.unroute("**/api/look")
        person.answer("1")
        person.wait("document.querySelectorAll('#prompt.markdown').length == 1")


def test_a_wrong_address_says_what_to_do(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(2)) as page:
        person = Watched(browser, page.address()[:-5])
        person.wait_for_text("Open the whole address that you were given")
        assert not person.page.is_visible("button"), "no button does anything yet"
        assert person.page.get_by_role("main").inner_text().startswith("This address leads nowhere."), "where one looks"
        person.close()


def test_a_page_at_the_wrong_public_address_says_so(browser: Any, tmp_path: Path) -> None:
    """It asked for the whole address, which was whole."""
    with served(tmp_path, plain_questions(2), door=door_for("127.0.0.1", "https://labels.example")) as page:
        person = Watched(browser, page.address())
        person.wait_for_text(
            "Refused, tell whoever runs the labelling: this is not from the page of this server (Origin)."
        )
        person.close()


def test_an_address_that_is_opened_in_the_same_tab(browser: Any, tmp_path: Path) -> None:
    """Which loads nothing, since only what is behind the # changes."""
    with served(tmp_path, plain_questions(4), "ann", "bo") as page:
        person = Watched(browser, page.address()[:-5])
        person.wait_for_text("Open the whole address that you were given")
        person.page.goto(page.address())
        person.wait_for_pair(1)
        person.page.wait_for_timeout(200)  # until the next pair is ready
        person.context.clear_cookies()
        person.answer("1")
        person.wait_for_text("Open the address that you were given once more.")
        person.page.goto(page.address())
        person.wait_for_text("saved 1 of 4")
        assert "#" not in person.page.url
        assert person.text("prompt") == "prompt 2", "what was on the screen stays there"
        with person.page.expect_event("load"):
            person.page.goto(page.address("bo"))
        person.wait_for_text("You label as bo")
        person.close()
    assert [label.annotator for label in page.labels] == ["ann"]


def test_a_pair_that_went_to_somebody_else_meanwhile_is_not_shown(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path, plain_questions(4), "ann", "bo", lease_seconds=1.0) as page, watched(browser, page) as person:
        person.page.wait_for_timeout(1500)  # pair 2, which was ready, is kept for nobody any more
        for number in (1, 2):
            said = {"person": page.person("bo"), "answer_id": f"{number}" * 20, "seconds": 1, "view": "text"}
            pair = page.ask("next", said, Cookie=page.cookie("bo"))[1]["pair"]
            assert pair["prompt"] == f"prompt {number}"
            page.ask("answer", said | {"pair": pair["id"], "choice": "tie"}, Cookie=page.cookie("bo"))
        person.answer("1")
        assert person.text("prompt") == "prompt 3"
        person.wait("document.body.dataset.unsent == 0")
    assert [label.role for label in page.labels] == ["selected", "selected", "overlap"]


def test_the_page_makes_no_markup_of_text() -> None:
    code = (files("activedpo_cli.label.web") / "page" / "label.js").read_text(encoding="utf-8")
    for sink in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "srcdoc",
        "://",
    ):
        assert sink not in code
