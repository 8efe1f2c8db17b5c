"""A judge's question and the one reading of a reply, and work on several things at once, without any server."""

import json
import threading
import time

import pytest

from activedpo_cli.base.at_once import each_in_order
from activedpo_cli.base.interruption import forget, request
from activedpo_cli.base.records import Spent
from activedpo_cli.base.settings import JudgeSettings
from activedpo_cli.oracles._judge_client import NotAskedError
from activedpo_cli.oracles._judge_limits import Allowance
from activedpo_cli.oracles._judge_prompt import (
    LETTERS,
    Marks,
    UnreadableReplyError,
    estimated_tokens,
    fresh_marks,
    least_tokens,
    question,
    read_reply,
    template_digest,
)
from activedpo_cli.oracles.base import Judgement

MARKS = Marks("CASE", "0f", "BBBB", "CCCC")


def test_the_case_stands_in_the_first_line_alone_and_the_rule_behind_the_responses() -> None:
    marks = fresh_marks()
    text = question(marks, "Which {prompt}?", "one {first}", "two", "shorter is better {x}")
    lines = text.split("\n")
    assert lines[0] == f"Case {marks.case}"
    assert marks.case not in "\n".join(lines[1:])
    assert text.index("one {first}") < text.index("two\n") < text.index("Answer with one JSON object")
    assert text.count(f"<<<{marks.mark} ") == text.count(f"\n{marks.mark}>>>") == 3
    assert "shorter is better {x}" in text
    assert len({marks.first, marks.second}) == 2
    assert set(marks.case + marks.first + marks.second) <= set(LETTERS)


def test_what_utf_8_cannot_carry_is_replaced() -> None:
    text = question(MARKS, "\ud800", "\udfff", "\ud83d\ude00", "r")
    assert text.encode().decode().count("\ufffd") == 2
    assert "😀" in text


def said(**changed: object) -> str:
    return json.dumps({"case": "CASE", "reason": "r", "better": "CCCC"} | changed)


@pytest.mark.parametrize(("better", "place"), [("BBBB", "first"), ("CCCC", "second"), ("tie", "tie")])
def test_a_verdict(better: str, place: str) -> None:
    assert read_reply(f"\n {said(better=better)} ", MARKS) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tie",
        said() * 2,
        f"[{said()}]",
        said(case="case"),
        said(case=7),
        said(better="bbbb"),
        said(better=["BBBB"]),
        said(better=None),
        said(reason=None),
        said(more=1),
        said()[:-1] + ', "better": "BBBB"}',
        f"`{said()}`",
        f"```json\n{said()}\n```\n```json\n{said()}\n```",
        f"<think>{said()}",
        "[" * 100_000,
        "NaN",
    ],
)
def test_no_verdict(text: str) -> None:
    with pytest.raises(UnreadableReplyError):
        read_reply(text, MARKS)


def test_the_digest_is_that_of_the_words_and_not_of_the_space_around_them() -> None:
    assert template_digest("a\n") == template_digest("a") != template_digest("b")


def test_fewest_tokens_are_fewer_than_any_tokenizer_counts() -> None:
    assert least_tokens("one two three four five") == 4
    assert least_tokens("日本語のテキスト") == 0
    assert estimated_tokens("one two three four five") == 7


@pytest.mark.parametrize(
    ("text", "counted"),
    [("The quick brown fox jumps over the lazy dog.", 10), ("日本語のテキスト", 6), ("Привет, как дела?", 8)],
)
def test_estimated_tokens_are_near_those_of_a_tokenizer(text: str, counted: int) -> None:
    """As many as GPT-4's, within a half: a limit and a price that count a quarter of Chinese texts are none."""
    assert counted / 1.5 <= estimated_tokens(text) <= counted * 1.5


@pytest.mark.parametrize(
    ("a_first", "b_first", "preferred", "probability"),
    [
        ("a", "a", "a", 1.0),
        ("b", "b", "b", 0.0),
        ("a", "b", "tie", 0.5),
        ("tie", "tie", "tie", 0.5),
        ("a", "tie", "tie", 0.75),
        ("tie", "b", "tie", 0.25),
        ("a", None, None, None),
        (None, None, None, None),
    ],
)
def test_two_orders_are_one_answer(a_first, b_first, preferred, probability) -> None:
    judgement = Judgement("p", a_first, b_first, {})
    assert (judgement.preferred, judgement.probability) == (preferred, probability)


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_whoever_is_first(workers: int) -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number * number

    ending = threading.Event()
    found = list(each_in_order(slow_first, list(range(7)), workers, ending=ending, give_up=lambda: None))
    assert found == [number * number for number in range(7)]
    assert not ending.is_set()


def test_after_a_failure_nothing_is_begun_and_what_was_begun_is_waited_for() -> None:
    begun, ended = [], []

    def fails_at_two(number: int) -> int:
        begun.append(number)
        if number == 2:
            raise ValueError("two")
        time.sleep(0.05)
        ended.append(number)
        return number

    results = each_in_order(fails_at_two, list(range(50)), 3, ending=threading.Event(), give_up=lambda: None)
    next(results)
    time.sleep(0.5)  # the reader is slow, and nothing more is begun meanwhile
    with pytest.raises(ValueError, match="two"):
        list(results)
    assert len(begun) < 10
    assert sorted(ended) == sorted(set(begun) - {2})


def test_a_failure_ends_the_work_while_an_earlier_item_waits() -> None:
    """As for a server that wants to be left alone, when another call has found that the key is wrong."""
    ending, begun = threading.Event(), []

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise ValueError
        assert ending.wait(10), "nobody told it that the work ends"
        return item

    found = each_in_order(work, range(50), 2, ending=ending, give_up=lambda: None)
    assert next(found) == 0
    with pytest.raises(ValueError):  # noqa: PT011
        next(found)
    assert sorted(begun) == [0, 1]


def test_after_an_interruption_nobody_is_waited_for() -> None:
    given_up, blocked = [], threading.Event()
    results = each_in_order(
        lambda number: blocked.wait(20) if number else 0,
        [0, 1, 2],
        2,
        ending=threading.Event(),
        give_up=lambda: given_up.append(True),
    )
    assert next(results) == 0
    request(KeyboardInterrupt)
    try:
        began = time.monotonic()
        results.close()
        assert time.monotonic() - began < 5
    finally:
        forget()
        blocked.set()
    assert given_up == [True]


class Noted:
    """Keeps what is noted of calls, of which none cost anything."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def sent(self, call: str, at_most: Spent) -> None:
        self.events.append("sent")

    def untaken(self, call: str) -> None:
        self.events.append("untaken")

    def spent(self) -> Spent:
        return Spent()


def test_after_an_interruption_no_call_is_noted() -> None:
    """Another process may have begun, and two writers would break the log."""
    noted, ending = Noted(), threading.Event()
    allowance = Allowance(JudgeSettings(), noted, ending)  # type: ignore[arg-type]
    refused, cut = allowance.begin("?"), allowance.begin("?")
    allowance.end(refused, is_untaken=True)
    allowance.give_up()
    allowance.end(cut, is_untaken=True)
    with pytest.raises(NotAskedError):
        allowance.begin("?")
    assert noted.events == ["sent", "sent", "untaken"]
