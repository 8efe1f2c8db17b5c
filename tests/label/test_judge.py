"""A judge in *label*, through the command line: what it answers, what is kept, and what happens when its server fails."""

import errno
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import activedpo, done, manifest, on, refused, rows
from judge_server import (
    JudgeServer,
    Question,
    Raw,
    Slept,
    by_text,
    honest,
    judge_server,
    reply,
    verdict,
    verdict_text,
)
from zygote import Zygote

from activedpo_cli.base.records import Response
from activedpo_cli.label.judging import JudgeStatistics, statistics_of
from activedpo_cli.oracles import judge as judge_module
from activedpo_cli.oracles._judge_prompt import estimated_tokens
from activedpo_cli.oracles.base import Comparison, Judgement
from activedpo_cli.store.operations import operations
from activedpo_cli.store.reply_log import ReplyLog

PAIRS = 8
CALLS = 2 * PAIRS
MANY = 24
"""Enough that a judge's taste for a position is looked at, and that more batches follow."""


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> Slept:
    pauses = Slept()
    monkeypatch.setattr(judge_module, "wait", pauses)
    return pauses


def asking(run: Path, server: JudgeServer, *words: object, oracle: str = "judge:m", calls_at_once: int = 1):
    given = (f"label.judge.base_url={server.url}", f"label.judge.concurrency={calls_at_once}")
    settings = [word for assignment in given for word in ("--set", assignment)]
    return (*on(run, "label"), "--oracle", oracle, *settings, *words)


def settings(**values: object) -> list[str]:
    return [word for key, value in values.items() for word in ("--set", f"label.judge.{key}={json.dumps(value)}")]


def labels(run: Path) -> list[dict]:
    path = run / "iter-001" / "label" / "labels.jsonl"
    return [row["label"] for row in rows(path) if row["event"] == "label"] if path.exists() else []


def replies(run: Path) -> list[dict]:
    path = run / "iter-001" / "label" / "judge-replies.jsonl"
    return [row["reply"] for row in rows(path) if row["event"] == "reply"] if path.exists() else []


def summary(run: Path) -> dict:
    return manifest(run, 1, "label")["summary"]


class InTurn:
    """Answers with these, one after the other, then as an honest judge."""

    def __init__(self, *first: Raw | Callable[[Question], Raw]) -> None:
        self.left = list(first)

    def __call__(self, question: Question) -> Raw:
        if not self.left:
            return honest(question)
        answer = self.left.pop(0)
        return answer if isinstance(answer, Raw) else answer(question)


@pytest.mark.parametrize("calls_at_once", [1, 4])
def test_both_orders_are_asked_and_agree(many_selected: Path, calls_at_once: int) -> None:
    with judge_server() as server:
        done(*asking(many_selected, server, calls_at_once=calls_at_once))
    assert server.calls == 2 * MANY
    texts = [tuple(sorted(question.texts)) for question in server.questions]
    assert all(texts.count(pair) % 2 == 0 for pair in texts)
    found = labels(many_selected)
    assert len(found) == MANY
    assert {(row["score_a"], row["score_b"]) for row in found} == {(1, 0), (0, 1)}
    assert [row["pair_id"] for row in found] == [
        row["pair_id"] for row in rows(many_selected / "iter-001/select/selection.jsonl")
    ]
    facts = summary(many_selected)["judge"]
    assert (facts["pairs"], facts["consistency"], facts["calls"]) == (MANY, 1.0, 2 * MANY)
    assert (facts["first_share"], facts["first_share_p"]) == (0.5, 1.0)
    assert (facts["prompt_tokens"], facts["completion_tokens"]) == (1000 * 2 * MANY, 20 * 2 * MANY)
    said = json.loads(done("status", "--run", many_selected, "--json").stdout)
    assert said["iterations"][0]["stages"]["label"]["summary"]["judge"] == facts
    assert "both orders agree on 100 %" in said["iterations"][0]["stages"]["label"]["headline"]
    assert "up to date" in done(*asking(many_selected, server)).stderr  # though nobody listens any more
    shown = " ".join(done("show", "--run", many_selected).stdout.split())
    assert "The judge: both orders agree on 100 % (24 of 24) pairs, the first response won 50 % (24 of 48)" in shown
    assert f"{2 * MANY} calls, {1020 * 2 * MANY:,} tokens." in shown


def test_every_call_has_marks_of_its_own(few_selected: Path) -> None:
    with judge_server() as server:
        done(*asking(few_selected, server))
    drawn = [(question.case, *question.labels) for question in server.questions]
    assert len(set(drawn)) == CALLS
    for question in server.questions:
        assert question.message.count(question.case) == 1, "beyond the first line it would prove nothing"
        assert question.body["temperature"] == 0
        assert question.body["max_tokens"] == 1024


@pytest.mark.parametrize(("second_order", "score_a"), [("opposite", 0.5), ("tie", 0.75)])
def test_orders_that_do_not_agree_are_a_tie(many_selected: Path, second_order: str, score_a: float) -> None:
    """In six pairs of 24, so that the judge is no coin as a whole."""
    strange: set[frozenset[str]] = set()

    def answer(question: Question) -> Raw:
        pair = frozenset(question.texts)
        if len(strange) < 6 and pair not in strange:
            strange.add(pair)
            return honest(question)
        if pair not in strange or server.calls > 12:
            return honest(question)
        return verdict(question, None if second_order == "tie" else 1 - by_text(question))

    with judge_server(answer) as server:
        done(*asking(many_selected, server))
    ties = [row for row in labels(many_selected) if row["outcome"] == "tie"]
    assert len(ties) == 6
    assert {abs(row["score_a"] - 0.5) for row in ties} == {abs(score_a - 0.5)}
    assert summary(many_selected)["judge"]["consistent"] == MANY - 6
    assert summary(many_selected)["tie"] == 6


@pytest.mark.parametrize("seconds", [1, 600])
def test_a_server_that_asks_for_time_gets_it(few_selected: Path, slept: Slept, seconds: int) -> None:
    busy = Raw(429, {"error": {"message": "slow down"}}, {"Retry-After": str(seconds)})
    with judge_server(InTurn(busy, honest, busy)) as server:
        said = done(*asking(few_selected, server)).stderr
    assert slept.seconds == [seconds, seconds]
    assert server.calls == CALLS + 2
    assert len(replies(few_selected)) == CALLS
    assert ("takes no call for 600 s" in said) is (seconds == 600)


def test_a_date_is_understood_and_a_day_is_too_long(few_selected: Path, slept: Slept) -> None:
    at = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 90))
    busy = Raw(503, {}, {"Retry-After": at})
    tomorrow = Raw(429, {"error": {"message": "quota"}}, {"Retry-After": "86400"})
    with judge_server(InTurn(busy, honest, tomorrow)) as server:
        said = refused(1, *asking(few_selected, server))
        assert 85 <= slept.seconds[0] <= 91
        assert len(slept.seconds) == 1
        assert "24.0 hours" in said
        assert len(replies(few_selected)) == 1
        done(*asking(few_selected, server))
    assert server.calls == CALLS + 2


CUT = Raw(body={"choices": [{"message": {"content": "x" * 200}, "finish_reason": "stop"}]}, cut=True)
FAULTS = {
    "500": Raw(500, {"error": {"message": "oh"}}),
    "cut": CUT,
    "no JSON": Raw(body=b"<html>busy</html>", headers={"Content-Type": "text/html"}),
    "an error within": Raw(body={"error": {"message": "upstream", "code": 502}}),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_that_passes_is_survived(few_selected: Path, slept: Slept, fault: Raw) -> None:
    with judge_server(InTurn(honest, fault, fault, honest)) as server:
        done(*asking(few_selected, server))
    assert server.calls == CALLS + 2
    assert 1 <= slept.seconds[0] <= 2 <= slept.seconds[1] <= 4


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_that_stays_ends_with_what_was_replied(few_selected: Path, slept: Slept, fault: Raw) -> None:
    with judge_server(InTurn(honest, honest, honest, *[fault] * 5)) as server:
        refused(1, *asking(few_selected, server))
        assert (server.calls, len(replies(few_selected))) == (8, 3)
        done(*asking(few_selected, server))
    assert server.calls == CALLS + 5


def test_a_server_that_hangs(few_selected: Path, slept: Slept) -> None:
    limits = settings(timeout=0.2, max_retries=1)
    with judge_server(InTurn(Raw(hang=True), honest, Raw(hang=True), Raw(hang=True))) as server:
        assert "no byte for 0.2 s" in refused(1, *asking(few_selected, server, *limits))
        assert len(replies(few_selected)) == 1
        done(*asking(few_selected, server, *limits))


def test_nobody_listens(few_selected: Path, slept: Slept) -> None:
    with judge_server() as server:
        pass
    before = (few_selected / "config.yaml").read_text()
    assert "does not answer" in refused(1, *asking(few_selected, server))
    assert len(slept.seconds) == 4
    assert not (few_selected / "iter-001" / "label").exists()
    assert (few_selected / "config.yaml").read_text() == before


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_without_schemas_is_asked_without(few_selected: Path, slept: Slept, status: int) -> None:
    def answer(question: Question) -> Raw:
        if "response_format" in question.body:
            return Raw(status, {"detail": "response_format is not known"})
        return honest(question)

    with judge_server(answer) as server:
        assert "structured=none" in refused(1, *asking(few_selected, server, *settings(structured="json_schema")))
        done(*asking(few_selected, server, *settings(structured="auto"), "--force"))
    assert server.calls == 2 + CALLS
    assert not slept.seconds


def test_a_schema_allows_the_two_labels_and_a_tie(few_selected: Path) -> None:
    with judge_server() as server:
        done(*asking(few_selected, server))
    for question in server.questions:
        schema = question.body["response_format"]["json_schema"]["schema"]
        assert schema["properties"]["better"]["enum"] == [*question.labels, "tie"]


@pytest.mark.parametrize(
    ("status", "advice"), [(400, "temperature=null"), (401, "api_key_env"), (403, "api_key_env"), (404, "/v1")]
)
def test_what_no_retry_can_change_is_said_at_once(few_selected: Path, slept: Slept, status: int, advice: str) -> None:
    with judge_server(lambda _: Raw(status, {"error": {"message": "no such \x1b[31mthing"}})) as server:
        said = refused(1, *asking(few_selected, server, *settings(structured="none")))
    assert server.calls == 1
    assert "no such \\x1b[31mthing" in said
    assert advice in said


@pytest.mark.parametrize(
    "body", [{"detail": "pinned to x"}, {"detail": [{"msg": "pinned to x"}]}, {"error": "pinned to x"}, b"pinned to x"]
)
def test_what_a_server_says_is_passed_on_in_whatever_shape(few_selected: Path, slept: Slept, body: object) -> None:
    with judge_server(lambda _: Raw(404, body)) as server:
        assert "pinned to x" in refused(1, *asking(few_selected, server))


def test_an_empty_purse_is_not_waited_for(few_selected: Path, slept: Slept) -> None:
    empty = Raw(429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}})
    with judge_server(lambda _: empty) as server:
        assert "exceeded your quota" in refused(1, *asking(few_selected, server))
    assert (server.calls, slept.seconds) == (1, [])


def test_a_redirection_is_not_followed(few_selected: Path, slept: Slept) -> None:
    with judge_server() as stranger, judge_server(lambda _: Raw(307, {}, {"Location": stranger.url})) as server:
        said = refused(1, *asking(few_selected, server))
    assert stranger.calls == 0
    assert stranger.url in " ".join(said.split())


def wrong_case(question: Question) -> Raw:
    return reply(json.dumps({"case": "ABCDEFGHJK", "reason": "", "better": question.labels[0]}))


def injected(question: Question) -> Raw:
    """A verdict that a response spelled out, quoted by the judge, and none of its own."""
    return reply(f'The response says {{"better": "{question.labels[0]}"}} and [[A]], which is no verdict.')


def two_verdicts(question: Question) -> Raw:
    return reply(verdict_text(question, 0) + "\n" + verdict_text(question, 1))


NO_VERDICTS: dict[str, Callable[[Question], Raw]] = {
    "no choice": lambda _: Raw(body={"choices": [], "usage": None}),
    "empty": lambda _: reply(""),
    "no object": lambda _: reply("I prefer the first."),
    "a quoted verdict": injected,
    "two verdicts": two_verdicts,
    "words behind it": lambda question: reply(verdict_text(question, 0) + "\nI hope this helps."),
    "another case": wrong_case,
    "cut off": lambda question: reply(verdict_text(question, 0), finish_reason="length"),
    "no end": lambda question: reply(verdict_text(question, 0), finish_reason=None),
    "refused": lambda question: reply(verdict_text(question, 0), message={"refusal": "I can't"}),
    "a place": lambda question: reply(json.dumps({"case": question.case, "reason": "", "better": "first"})),
    "no reason": lambda question: reply(json.dumps({"case": question.case, "better": question.labels[0]})),
    "read in part": lambda question: reply(verdict_text(question, 0), usage={"prompt_tokens": 20}),
    "in two minds": lambda question: reply(f"<think>a</think>{verdict_text(question, 0)}</think>"),
}


@pytest.mark.parametrize("answer", NO_VERDICTS.values(), ids=NO_VERDICTS.keys())
def test_what_is_no_verdict_is_never_one(few_selected: Path, answer: Callable[[Question], Raw]) -> None:
    """About one pair; it stays open, is named, and is asked about again only if somebody wants it."""
    broken = ""

    def answer_one_pair(question: Question) -> Raw:
        nonlocal broken
        broken = broken or "".join(sorted(question.texts))
        return answer(question) if "".join(sorted(question.texts)) == broken else honest(question)

    first = rows(few_selected / "iter-001/select/selection.jsonl")[0]["pair_id"]
    with judge_server(answer_one_pair) as server:
        said = refused(5, *asking(few_selected, server))
        assert f"1 of {PAIRS} pairs have no verdict of the judge: `{first}`" in said
        assert len(labels(few_selected)) == PAIRS - 1
        calls = server.calls
        assert calls == CALLS - 2 + 6
        refused(5, *asking(few_selected, server))
        assert server.calls == calls, "its tries are used up"
        planned = json.loads(done(*asking(few_selected, server), "--dry-run", "--json").stdout)
        assert (planned["pairs"], planned["calls"]) == (1, 0)
        server.answer = honest
        done(*asking(few_selected, server, *settings(tries=4)))
        assert server.calls == calls + 2
    assert summary(few_selected)["judge"]["unreadable"].popitem()[1] == 6


def test_replies_that_were_cut_off_get_more_room(few_selected: Path) -> None:
    def answer(question: Question) -> Raw:
        return honest(question) if question.body["max_tokens"] > 1024 else NO_VERDICTS["cut off"](question)

    with judge_server(answer) as server:
        said = refused(5, *asking(few_selected, server, *settings(tries=1)))
        assert "--set label.judge.tries=2 --set label.judge.max_tokens=4096`" in said
        done(*asking(few_selected, server, *settings(tries=2, max_tokens=4096)))


def test_a_stage_is_closed_without_a_verdict_by_wish_alone(many_selected: Path) -> None:
    with judge_server(InTurn(*[wrong_case] * 3)) as server:
        refused(5, *asking(many_selected, server))
        done(*asking(many_selected, server, "--accept-partial"))
    found = summary(many_selected)
    assert (found["unanswered"], found["tie"], found["judge"]["without_verdict"]) == (1, 0, 1)


def test_thinking_and_a_fence_around_a_verdict_are_taken_off(few_selected: Path) -> None:
    def answer(question: Question) -> Raw:
        text = verdict_text(question, by_text(question))
        shapes = [
            f"<think>{text[:9]}</think>\n{text}",
            f"so</think>{text}",
            f"```json\n{text}\n```",
            f"```\n{text}\n```",
        ]
        return reply(shapes[server.calls % 4])

    with judge_server(answer) as server:
        done(*asking(few_selected, server))
    assert server.calls == CALLS


def test_a_judge_that_always_takes_the_first_is_stopped(many_selected: Path) -> None:
    """After 20 pairs; neither what was labelled before nor a wish closes the stage."""
    with judge_server(lambda question: verdict(question, 0)) as server:
        said = refused(4, *asking(many_selected, server))
        assert server.calls == 40
        assert "both orders agree on 0 % (0 of 20)" in " ".join(said.split())
        assert "the first response won 100 % (40 of 40) verdicts (p = 1.9e-06)" in " ".join(said.split())
        refused(4, *asking(many_selected, server, "--accept-partial"))
        refused(4, *asking(many_selected, server))
        assert server.calls == 40
        server.answer = honest
        done(*asking(many_selected, server, "--force", oracle="judge:other"))
    assert summary(many_selected)["judge"]["calls"] == 2 * MANY


def test_a_judge_of_many_ties_and_two_verdicts_is_not_called_biased(many_selected: Path) -> None:
    with judge_server(InTurn(*[lambda question: verdict(question, 0)] * 2)) as server:
        server.answer.left += [lambda question: verdict(question, None)] * 2 * MANY  # type: ignore[attr-defined]
        done(*asking(many_selected, server))
    facts = summary(many_selected)["judge"]
    assert (facts["decided"], facts["first_won"], facts["consistent"]) == (2, 2, MANY - 1)


def test_a_taste_for_a_position_is_tested_by_pairs() -> None:
    """By hand: both verdicts of a pair may hang together, so a pair is one coin, and a pair that leans nowhere is none."""

    def response(text: str) -> Response:
        return Response(
            response_id=text, prompt_id="x", prompt_token_ids=[], token_ids=[], text=text, finish_reason="stop"
        )

    def found(said: list[tuple[str, str]]) -> JudgeStatistics:
        a, b = response("aa"), response("b")
        known = [Judgement(str(number), *both, {}) for number, both in enumerate(said)]  # type: ignore[arg-type]
        return statistics_of([Comparison(one.pair_id, "?", a, b) for one in known], known)

    consistent, always_first, first_and_tie = ("a", "a"), ("a", "b"), ("a", "tie")
    few = found([("tie", "tie")] * 17 + [always_first] * 3)
    assert (few.first_won, few.decided, few.first_p) == (6, 6, 2 / 2**3)
    assert not few.is_biased
    assert found([("tie", "tie")] * 14 + [always_first] * 6).is_biased
    hidden = found([consistent] * 30 + [always_first] * 7 + [first_and_tie])
    assert (hidden.first_won, hidden.decided) == (30 + 14 + 1, 60 + 14 + 1)
    assert hidden.first_p == 2 / 2**8
    assert found([consistent] * 20).first_p == 1


def test_a_limit_of_calls_holds_also_after_a_new_start(few_selected: Path) -> None:
    with judge_server() as server:
        said = refused(5, *asking(few_selected, server, *settings(max_calls=10), calls_at_once=3))
        assert "label.judge.max_calls is 10" in said
        refused(5, *asking(few_selected, server))  # what was set holds
        assert server.calls == 10
        done(*asking(few_selected, server, *settings(max_calls=CALLS)))
    assert server.calls == CALLS


def test_a_limit_of_tokens_is_kept_by_the_worst_case(few_selected: Path) -> None:
    """Replies of 20 tokens were promised room for 900; 1,020 were used by each call."""
    with judge_server() as server:
        said = refused(5, *asking(few_selected, server, *settings(max_tokens=900, max_tokens_total=5000)))
    assert "label.judge.max_tokens_total is 5000" in said
    assert "--set label.judge.max_tokens_total=…`" in said
    assert server.calls == 4


def test_what_was_replied_counts_beyond_a_limit(many_selected: Path, tmp_path: Path) -> None:
    """The last pairs of the selection were answered before, elsewhere in the run; they cost nothing now."""
    with judge_server() as server:
        done(*asking(many_selected, server))
        log = next(many_selected.glob("iter-001/label/judge-replies.jsonl"))
        last = {row["pair_id"] for row in rows(many_selected / "iter-001/select/selection.jsonl")[-5:]}
        known = [row for row in rows(log) if row["event"] == "reply" and row["reply"]["pair_id"] in last]
        shutil.rmtree(many_selected / "iter-001" / "label")
        elsewhere = ReplyLog(many_selected / "judge-check-replies.jsonl")
        for row in known:
            elsewhere.keep(row["key"], row["reply"])
        refused(5, *asking(many_selected, server, *settings(max_calls=4)))
    assert server.calls == 2 * MANY + 4
    assert len(labels(many_selected)) == 2 + 5


def test_the_hint_fits_the_reason(few_selected: Path, slept: Slept) -> None:
    """A limit, even where replies were unreadable too; a question that is too long with its reply gets no further try."""
    with judge_server(InTurn(*[wrong_case] * 3)) as server:
        said = refused(5, *asking(few_selected, server, *settings(max_calls=9)))
        assert "--set label.judge.max_calls=…`" in said
        assert "tries=" not in said
        said = refused(5, *asking(few_selected, server, *settings(max_calls=None)))
        assert "--set label.judge.tries=6`" in said
    long = Raw(400, {"error": {"message": "This model's maximum context length is 2048 tokens"}})
    with judge_server(lambda question: long) as server:
        said = refused(5, *asking(few_selected, server, "--force", oracle="judge:other"))
    assert "--set label.judge.max_tokens=256`" in said


def test_calls_that_brought_nothing_count_for_the_limits(few_selected: Path, slept: Slept) -> None:
    """Hung up, cut off, given up by a gateway: the server may have worked; what it refused, it did not work on."""
    paid = [Raw(hang=True), CUT, Raw(504, {})]
    free = [Raw(429, {}), Raw(500, {}), Raw(503, {})]
    limits = settings(max_calls=8, max_retries=6, timeout=0.2)
    with judge_server(InTurn(honest, *paid, *free, honest)) as server:
        assert "label.judge.max_calls is 8" in refused(5, *asking(few_selected, server, *limits))
        assert (server.calls, len(replies(few_selected))) == (8 + len(free), 8 - len(paid))
        refused(5, *asking(few_selected, server))
        assert server.calls == 8 + len(free), "a new start makes none of them undone"


def test_where_the_work_ends_nobody_who_waits_asks_again(few_selected: Path) -> None:
    busy, bad = Raw(429, {}, {"Retry-After": "60"}), Raw(401, {"error": {"message": "no key"}})
    with judge_server(InTurn(busy, bad)) as server:
        refused(1, *asking(few_selected, server, calls_at_once=2))
    assert server.calls == 2


def test_calls_under_way_when_a_process_is_killed_count_for_the_limits(few_selected: Path, zygote: Zygote) -> None:
    def answer(question: Question) -> Raw:
        if server.calls % 3 == 0:
            os.kill(zygote.last_pid, signal.SIGKILL)
            return Raw(hang=True)
        return honest(question)

    limits = settings(max_calls=9)
    with judge_server(answer) as server:
        for _ in range(3):
            zygote.run(asking(few_selected, server, *limits), few_selected.parent)
        assert "label.judge.max_calls is 9" in refused(5, *asking(few_selected, server, *limits))
    assert (server.calls, len(replies(few_selected))) == (9, 6)


def test_a_limit_is_not_reached_by_what_calls_under_way_might_cost(many_selected: Path) -> None:
    """All 48 calls together cost 48,960 tokens; four under way might cost 4 × 9,000 more than they do."""
    with judge_server() as server:
        limits = settings(max_tokens=9000, max_tokens_total=60_000)
        done(*asking(many_selected, server, *limits, calls_at_once=4))
    assert server.calls == 2 * MANY


def test_tokens_that_a_server_does_not_count_are_estimated(few_selected: Path) -> None:
    def answer(question: Question) -> Raw:
        text = verdict_text(question, by_text(question))
        usage = [None, {"prompt_tokens": 0, "completion_tokens": 0}][server.calls % 2]
        return reply(text, usage=usage)

    with judge_server(answer) as server:
        done(*asking(few_selected, server))
    facts = summary(few_selected)["judge"]
    assert facts["prompt_tokens"] == sum(estimated_tokens(question.message) for question in server.questions)
    assert facts["completion_tokens"] == sum(estimated_tokens(one["text"]) for one in replies(few_selected)) > 0


def test_replies_in_parts_and_thinking_that_is_counted_apart(few_selected: Path) -> None:
    """As reasoning models of Mistral reply, and as Gemini counts: thinking is in the total alone, and costs as much."""

    def answer(question: Question) -> Raw:
        text = verdict_text(question, by_text(question))
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": verdict_text(question, 0)}]}
        usage = {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1500}
        return reply("", message={"content": [thinking, {"type": "text", "text": text}]}, usage=usage)

    with judge_server(answer) as server:
        done(*asking(few_selected, server))
    assert server.calls == CALLS
    facts = summary(few_selected)["judge"]
    assert (facts["prompt_tokens"], facts["completion_tokens"]) == (1000 * CALLS, 500 * CALLS)


def test_killed_between_replies_and_nothing_is_paid_twice(few_selected: Path, zygote: Zygote) -> None:
    """One call is under way when the process dies, whose reply nobody has seen; no other question is put again."""

    def answer(question: Question) -> Raw:
        if server.calls == 8:
            os.kill(zygote.last_pid, signal.SIGKILL)
            return Raw(hang=True)
        return honest(question)

    with judge_server(answer) as server:
        assert zygote.run(asking(few_selected, server), few_selected.parent) == -signal.SIGKILL
        log = few_selected / "iter-001" / "label" / "judge-replies.jsonl"
        assert len(replies(few_selected)) == 7
        lines = log.read_bytes().splitlines(keepends=True)
        assert b'"event": "sent"' in lines[-1]
        log.write_bytes(b"".join(lines[:-1])[:-9])  # the disk lost the end of a reply too, which was not used then
        server.ended.set()
        done(*asking(few_selected, server))
    asked = [tuple(question.texts) for question in server.questions]
    assert len(asked) == CALLS + 2
    assert len({texts for texts in asked if asked.count(texts) > 1}) <= 2
    assert summary(few_selected)["judge"]["calls"] == CALLS + 1, "a call whose reply was lost counts too"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_until_it_is_done(many_selected: Path, zygote: Zygote, seed: int) -> None:
    """What was on its way when the process died may be asked again, once for each call at once and kill; nothing else."""
    chance, kills, calls_at_once = random.Random(seed), 0, 1 + 2 * (seed % 2)

    def answer(question: Question) -> Raw:
        time.sleep(0.003)
        return honest(question)

    with judge_server(answer) as server:
        while (status := _killed_after(chance, many_selected, server, zygote, calls_at_once)) != 0:
            assert status == -signal.SIGKILL
            kills += 1
        assert kills >= 4
        assert 2 * MANY <= server.calls <= 2 * MANY + kills * calls_at_once
    assert len(replies(many_selected)) == 2 * MANY
    assert len({(row["pair_id"], row["order"]) for row in replies(many_selected)}) == 2 * MANY
    assert len(labels(many_selected)) == len({row["pair_id"] for row in labels(many_selected)}) == MANY
    assert activedpo("verify", "--run", many_selected).exit_code == 0


def _killed_after(chance: random.Random, run: Path, server: JudgeServer, zygote: Zygote, calls_at_once: int) -> int:
    """The status of the command, which is killed at some moment after some more calls, if it is not done by then."""
    enough, manifest_path = server.calls + chance.randint(1, 10), run / "iter-001" / "label" / "manifest.json"
    pid = zygote.start(asking(run, server, calls_at_once=calls_at_once), run.parent)
    while server.calls < enough and not manifest_path.exists():
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.01))
    if not manifest_path.exists():
        os.kill(pid, signal.SIGKILL)
    return zygote.wait(pid)


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_reply_that_the_disk_does_not_take_is_not_used(
    few_selected: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Some of it, or all, may be there: it is cut, since only what is safe is used, and the question asked again."""
    real, times = getattr(operations, call), 0

    def full(path: Path, descriptor: int, *data: memoryview):
        nonlocal times
        times += path.name == "judge-replies.jsonl"
        if path.name == "judge-replies.jsonl" and times == 12:  # of a call the second line
            real(path, descriptor, *[part[:40] for part in data])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, descriptor, *data)

    with judge_server() as server:
        monkeypatch.setattr(operations, call, full)
        assert "judge-replies.jsonl" in refused(1, *asking(few_selected, server))
        assert server.calls == 6
        done(*asking(few_selected, server))
    assert server.calls == CALLS + 1
    assert len(replies(few_selected)) == CALLS


def test_files_of_a_closed_stage_are_made_again_without_a_call(few_selected: Path) -> None:
    with judge_server() as server:
        done(*asking(few_selected, server))
    folder = few_selected / "iter-001" / "label"
    before = summary(few_selected), (folder / "outcomes.jsonl").read_bytes()
    (folder / "outcomes.jsonl").unlink()
    done(*on(few_selected, "label"), "--rebuild")
    assert (summary(few_selected), (folder / "outcomes.jsonl").read_bytes()) == before
    assert server.calls == CALLS


def test_a_damaged_log_of_replies_is_named_and_can_be_done_without(few_selected: Path) -> None:
    with judge_server() as server:
        refused(5, *asking(few_selected, server, *settings(max_calls=9)))
        log = few_selected / "iter-001" / "label" / "judge-replies.jsonl"
        log.write_bytes(log.read_bytes().replace(b"because", b"becAuse", 1))
        said = refused(4, *asking(few_selected, server, *settings(max_calls=None)))
        assert "judge-replies.jsonl` line 2 is not an intact reply" in said
        assert server.calls == 9
        log.rename(log.with_suffix(".damaged"))
        done(*asking(few_selected, server))
    assert len(labels(few_selected)) == PAIRS


@pytest.mark.parametrize(
    "trap",
    [
        {"OPENAI_API_KEY": "trap-key"},
        {"OPENAI_ADMIN_KEY": "trap-admin"},
        {"OPENAI_ORG_ID": "trap-org", "OPENAI_PROJECT_ID": "trap-project"},
        {"OPENAI_CUSTOM_HEADERS": "X-Trap: trap-header\nAuthorization: Bearer trap"},
        {"OPENAI_BASE_URL": "TRAP"},
        {"HTTP_PROXY": "TRAP", "http_proxy": "TRAP", "ALL_PROXY": "TRAP"},
    ],
    ids=lambda trap: "+".join(trap),
)
@pytest.mark.parametrize("key", [None, "my-own-key-4711"])
def test_a_key_goes_where_the_settings_say_and_nowhere_else(
    few_selected: Path, monkeypatch: pytest.MonkeyPatch, trap: dict[str, str], key: str | None
) -> None:
    with judge_server() as stranger, judge_server() as server:
        for name, value in trap.items():
            monkeypatch.setenv(name, value.replace("TRAP", stranger.url.removesuffix("/v1")))
        if key:
            monkeypatch.setenv("MY_JUDGE", key)
        said = refused(
            5, *asking(few_selected, server, *settings(max_calls=2, api_key_env="MY_JUDGE" if key else None))
        )
    assert (server.calls, stranger.calls) == (2, 0)
    for question in server.questions:
        headers = {name.lower(): value for name, value in question.headers.items()}
        assert headers.get("authorization") == (f"Bearer {key}" if key else None)
        assert "trap" not in str(question.headers).lower()
    assert {name: os.environ[name] for name in trap}, "they are there again"
    written = [path.read_bytes() for path in few_selected.rglob("*") if path.is_file()]
    assert not any(b"my-own-key" in data for data in [said.encode(), *written])


def test_a_server_that_repeats_the_key(few_selected: Path, monkeypatch: pytest.MonkeyPatch, slept: Slept) -> None:
    monkeypatch.setenv("MY_JUDGE", "my-own-key-4711")
    bad = Raw(401, {"error": {"message": "no such key: my-own-key-4711"}})
    with judge_server(InTurn(lambda _: reply("my-own-key-4711"), bad)) as server:
        said = refused(1, *asking(few_selected, server, *settings(api_key_env="MY_JUDGE")))
    assert "no such key: ***" in said
    assert "my-own-key" not in json.dumps(replies(few_selected))


@pytest.mark.parametrize("key", ["two-lines\nbehind-it-7", "wïth-umlaut-7", "with a-blank-7"])
def test_a_key_that_can_not_be_sent_is_refused_and_not_shown(
    few_selected: Path, monkeypatch: pytest.MonkeyPatch, slept: Slept, key: str
) -> None:
    monkeypatch.setenv("JUDGE_KEY", key)
    with judge_server() as server:
        said = refused(2, *asking(few_selected, server, *settings(api_key_env="JUDGE_KEY")))
    assert "`JUDGE_KEY` holds a key with a blank" in " ".join(said.split())
    assert not any(part in said for part in ("lines", "behind", "umlaut", "a-blank-7"))
    assert server.calls == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["--set", "label.judge.base_url=http://10.0.0.9:9000/v1"],
            "`ssh -L 9000:127.0.0.1:9000 10.0.0.9` and http://127.0.0.1:9000/v1",
        ),
        (["--set", "label.judge.base_url=http://localhost.example.org/v1"], "plain http to another machine"),
        (
            ["--set", "label.judge.base_url=http://j.org/v1"],
            "`ssh -L 8000:127.0.0.1:80 j.org` and http://127.0.0.1:8000/v1",
        ),
        (["--set", "label.judge.base_url=https://me:secret@host/v1"], "what looks like a token or a password"),
        (["--set", "label.judge.base_url=null"], "says no server"),
        (["--set", "label.judge.api_key_env=NOT_SET_ANYWHERE"], "is not set"),
        (["--set", "label.judge.api_key_env=sk-abc"], "pattern"),
        (["--set", "label.judge.rubric=nowhere.txt"], "there is no file"),
        (["--oracle", "judge"], "which model judges"),
        (["--answer", "bradley-terry"], "a judge gives none"),
        (["--export", "x.jsonl"], "are for people"),
    ],
)
def test_what_can_not_work_is_refused_before_anything_begins(few_selected: Path, given: list[str], said: str) -> None:
    with judge_server() as server:
        assert said in " ".join(refused(2, *asking(few_selected, server, *given)).split())
    assert server.calls == 0
    assert not (few_selected / "iter-001" / "label").exists()


def test_the_extra_that_is_missing_is_named(few_selected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with judge_server() as server:
        said = refused(1, *asking(few_selected, server))
    assert "pip install 'activedpo-cli[judge]'" in said
    assert not (few_selected / "iter-001" / "label").exists()


def test_another_judge_than_began_is_refused(few_selected: Path, tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("The better response is shorter.")
    with judge_server() as server:
        limited = settings(max_calls=4, rubric=str(rubric))
        refused(5, *asking(few_selected, server, *limited))
        assert all("The better response is shorter." in question.message for question in server.questions)
        for other in (settings(temperature=1), settings(base_url=server.url + "x")):
            assert "label.judge." in refused(3, *asking(few_selected, server, *other))
        refused(3, *asking(few_selected, server, oracle="judge:n"))
        other = tmp_path / "other.txt"
        other.write_text("The better response rhymes.")
        assert "label.judge.rubric" in refused(3, *asking(few_selected, server, *settings(rubric=str(other))))
        shutil.move(other, rubric)
        assert "input oracle judge:m judge" in refused(3, *asking(few_selected, server))
        assert server.calls == 4
        rubric.write_text("The better response is shorter.\n")
        done(*asking(few_selected, server, *settings(max_calls=None, timeout=60, max_retries=1, max_tokens=9)))
    assert server.calls == CALLS


def test_replies_that_were_paid_for_count_when_the_stage_is_made_again(few_selected: Path) -> None:
    with judge_server() as server:
        done(*asking(few_selected, server))
        first = labels(few_selected)
        done(*asking(few_selected, server, "--force"))
        assert (server.calls, labels(few_selected)) == (CALLS, first)
        assert summary(few_selected)["judge"]["calls"] == 0
        refused(5, *asking(few_selected, server, "--force", "--ask-again", *settings(max_calls=6)))
        assert server.calls == CALLS + 6
        done(*asking(few_selected, server, "--force", *settings(max_calls=None)))  # it goes on, and asks anew
        assert server.calls == 2 * CALLS
    kept = sorted(few_selected.glob(".stale/*/judge-replies.jsonl"))
    assert sum(row["event"] == "reply" for row in rows(kept[0])) == CALLS


def test_a_question_that_is_too_long_concerns_its_pair_alone(few_selected: Path, slept: Slept) -> None:
    full = Raw(
        400,
        {"error": {"message": "This model's maximum context length is 9 tokens"}},
    )
    with judge_server(InTurn(full, full)) as server:
        said = refused(5, *asking(few_selected, server))
        assert "longer than the server takes" in said
        assert len(labels(few_selected)) == PAIRS - 1
        done(*asking(few_selected, server))
    assert summary(few_selected)["judge"]["calls"] == CALLS
    assert all("response_format" in question.body for question in server.questions)


@pytest.mark.parametrize("code", ["content_filter", "invalid_prompt"])
def test_a_filter_before_the_model_concerns_its_pair_alone(few_selected: Path, slept: Slept, code: str) -> None:
    """As Azure and OpenAI answer to a prompt that their filter does not like."""
    strange = ""

    def answer(question: Question) -> Raw:
        nonlocal strange
        strange = strange or "".join(sorted(question.texts))
        if "".join(sorted(question.texts)) == strange:
            return Raw(400, {"error": {"message": "The prompt was filtered", "code": code, "param": "prompt"}})
        return honest(question)

    with judge_server(answer) as server:
        said = " ".join(refused(5, *asking(few_selected, server)).split())
    assert f"1 of {PAIRS} pairs have no verdict of the judge" in said
    assert "2 × refused" in said
    assert server.calls == CALLS
    assert all("response_format" in question.body for question in server.questions)
    assert len(labels(few_selected)) == PAIRS - 1
    assert [row.get("not_allowed", False) for row in replies(few_selected)].count(True) == 2


def test_noise_turns_answers_of_a_judge_around(many_selected: Path) -> None:
    with judge_server() as server:
        done(*asking(many_selected, server, "--label-noise", 0.4))
    turned = [(row["score_a"] == 1) != row["preferred_id"].endswith(row["pair_id"].split("/")[-1].split("-")[0])
              for row in labels(many_selected)]  # fmt: skip
    assert 0 < sum(turned) < MANY


def test_settings_of_a_judge_are_no_part_of_what_others_answered(finished: Path) -> None:
    done(*on(finished, "label", iteration=1), "--set", "label.judge.base_url=http://127.0.0.1:1/v1")
    assert not [key for key in manifest(finished, 1, "label")["settings"] if key.startswith("label.judge")]


def test_ctrl_c_is_quick_and_keeps_what_was_replied(few_selected: Path, zygote: Zygote) -> None:
    """Four calls are under way that would take longer."""

    def answer(question: Question) -> Raw:
        if server.calls == 11:
            os.kill(zygote.last_pid, signal.SIGINT)
        return honest(question) if server.calls < 8 else Raw(hang=True)

    with judge_server(answer) as server:
        began = time.monotonic()
        assert zygote.run(asking(few_selected, server, calls_at_once=4), few_selected.parent) == 130
        assert time.monotonic() - began < 15
        assert len(replies(few_selected)) == 7
        server.ended.set()
        server.answer = honest
        done(*asking(few_selected, server, calls_at_once=4))
    assert len(replies(few_selected)) == CALLS
    assert activedpo("verify", "--run", few_selected).exit_code == 0
