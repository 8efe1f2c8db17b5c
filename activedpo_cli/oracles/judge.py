"""A language model compares, in both orders, at any OpenAI-compatible server: `judge:MODEL`; see `label.judge`.

Both orders agree: that is the answer. They contradict each other, or one of them is a tie: a tie. No verdict could be read
in an order: no answer, which is never a tie.
"""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from activedpo_cli.base.at_once import each_in_order
from activedpo_cli.base.errors import OracleNotFoundError, UsageError
from activedpo_cli.base.records import RecordedPreference
from activedpo_cli.base.settings import JudgeSettings, LabelSettings
from activedpo_cli.oracles._judge_client import JudgeClient, Reply, TooLongError
from activedpo_cli.oracles._judge_prompt import (
    RUBRIC,
    Marks,
    Place,
    UnreadableReplyError,
    estimated_tokens,
    fresh_marks,
    least_tokens,
    question,
    read_reply,
    response_format,
    template_digest,
)
from activedpo_cli.oracles.base import Comparison, Judgement, Preferred, ReplyMemory, SeedOfPair, Spent, Verdict

ASKS_PEOPLE = False
SCORES_TEXT = False
KEEPS_REPLIES = True
LONGEST_RUBRIC = 2**16

Order = Literal["ab", "ba"]
ORDERS: tuple[Order, ...] = ("ab", "ba")
WINNERS: dict[Order, dict[Place, Preferred]] = {
    "ab": {"first": "a", "second": "b", "tie": "tie"},
    "ba": {"first": "b", "second": "a", "tie": "tie"},
}


def build(
    argument: str | None,
    settings: LabelSettings,
    device: str,
    *,
    preferences: Sequence[RecordedPreference] = (),
    memory: ReplyMemory | None = None,
) -> "JudgeOracle":
    """The judge, which has asked nobody yet.

    Raises:
        UsageError: No model is named, the rubric can't be read, or nothing keeps replies.

    """
    return JudgeOracle(*questioned(argument, settings, memory))


def questioned(
    argument: str | None, settings: LabelSettings, memory: ReplyMemory | None
) -> tuple[str, JudgeSettings, ReplyMemory]:
    """Whom to ask, how, and what keeps the replies; raises what `build` does."""
    if memory is None:
        raise UsageError("a judge is asked by *label* and `activedpo judge check` alone, which keep its replies")
    return _model(argument), settings.judge, memory


def identity(argument: str | None, settings: LabelSettings) -> dict[str, str]:
    """One digest of all that a verdict depends on: model, address, template with rubric, sampling."""
    judge = settings.judge
    asked = [_model(argument), judge.base_url, rubric_digest(judge), _sampling(judge)]
    return {"judge": f"sha256:{hashlib.sha256(json.dumps(asked).encode()).hexdigest()}"}


def rubric_digest(settings: JudgeSettings) -> str:
    """The digest of what a judge is told beside the texts; raises what `identity` does where the rubric can't be read."""
    return template_digest(_rubric(settings))


class JudgeOracle:
    """Asks about each pair in both orders, and keeps every reply before it is read."""

    def __init__(self, model: str, settings: JudgeSettings, memory: ReplyMemory) -> None:
        self._model = model
        self.settings = settings
        self._memory = memory
        self._rubric = _rubric(settings)
        self._asked = [model, settings.base_url, template_digest(self._rubric), _sampling(settings)]
        self._client: JudgeClient | None = None
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._is_over = False
        self._under_way = Spent()
        self._stopped: str | None = None

    @property
    def stopped(self) -> str | None:
        """The limit that was reached, None where none was."""
        return self._stopped

    def prepare(self) -> None:
        """Raises UsageError where the settings name no server or no key, ActiveDPOError where the package is missing."""
        if self._client is None:
            self._client = JudgeClient(self._model, self.settings, pause=self._pause, tell=self._memory.tell)

    def compare(self, comparisons: Sequence[Comparison], seed_of_pair: SeedOfPair) -> list[Verdict]:
        """The verdicts; without an answer where none could be read, or where a limit of calls was reached."""
        return [verdict_of(judgement) for judgement in self.ask(comparisons)]

    def ask(self, comparisons: Sequence[Comparison]) -> Iterator[Judgement]:
        """The judgements of pairs in their order, several pairs at a time.

        Where the reader goes away or fails, calls under way are waited for and kept; after an interruption nothing is.
        """
        if any(judgement.probability is None for judgement in self.judgements(comparisons)):
            self.prepare()
        self._ending.clear()
        return each_in_order(
            self._judged, comparisons, self.settings.concurrency, ending=self._ending, give_up=self._give_up
        )

    def judgements(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """What is known of pairs by the replies that are kept."""
        return [self._known(comparison) for comparison in comparisons]

    def calls_to_come(self, comparisons: Sequence[Comparison]) -> tuple[int, int]:
        """Calls that are needed if every reply can be read, and about how many tokens they ask with."""
        open_questions = [
            (comparison, order)
            for comparison in comparisons
            for order in ORDERS
            if self._winner(comparison, order, Counter()) is None
        ]
        tokens = sum(estimated_tokens(self._question(*asked, fresh_marks())) for asked in open_questions)
        return len(open_questions), tokens

    def _judged(self, comparison: Comparison) -> Judgement:
        """Ask what is not known of a pair."""
        for order in ORDERS:
            self._ask_in(comparison, order)
        self._memory.advance()
        return self._known(comparison)

    def _known(self, comparison: Comparison) -> Judgement:
        unreadable: Counter[str] = Counter()
        a_first, b_first = (self._winner(comparison, order, unreadable) for order in ORDERS)
        return Judgement(comparison.pair_id, a_first, b_first, dict(unreadable))

    def _winner(self, comparison: Comparison, order: Order, unreadable: Counter[str]) -> Preferred | None:
        for reply in self._memory.replies(self._key(comparison, order)):
            try:
                return WINNERS[order][_read(reply)]
            except UnreadableReplyError as error:
                unreadable[str(error)] += 1
        return None

    def _ask_in(self, comparison: Comparison, order: Order) -> None:
        key = self._key(comparison, order)
        while self._winner(comparison, order, Counter()) is None:
            if len(self._memory.replies(key)) >= self.settings.tries:
                return None
            marks = fresh_marks()
            asked = self._question(comparison, order, marks)
            if not self._reserve(asked):
                return None
            reply = None
            try:
                assert self._client is not None
                reply = self._client.ask(asked, response_format(marks))
            except TooLongError:
                return self._keep(key, comparison, order, marks, asked, None)
            finally:
                self._release(asked)
            self._keep(key, comparison, order, marks, asked, reply)
        return None

    def _keep(
        self, key: str, comparison: Comparison, order: Order, marks: Marks, asked: str, reply: Reply | None
    ) -> None:
        """Store a reply; None stands for a question that is longer than the server takes, and costs nothing."""
        record: dict[str, Any] = {"pair_id": comparison.pair_id, "order": order, **asdict(marks)}
        record |= {"least_tokens": least_tokens(asked)}
        if reply is None:
            record["too_long"] = True
        else:
            record |= asdict(reply)
            if reply.prompt_tokens is None:
                record["estimated_tokens"] = estimated_tokens(asked)
        with self._lock:
            if not self._is_over:
                self._memory.keep(key, record)

    def _reserve(self, asked: str) -> bool:
        """Whether the limits leave room for one more call, which is then counted as under way."""
        settings, needed = self.settings, estimated_tokens(asked)
        with self._lock:
            spent = self._memory.spent()
            calls = spent.calls + self._under_way.calls + 1
            tokens = spent.tokens + self._under_way.tokens + needed + settings.max_tokens
            if settings.max_calls is not None and calls > settings.max_calls:
                self._stopped = f"label.judge.max_calls is {settings.max_calls}"
            elif settings.max_tokens_total is not None and tokens > settings.max_tokens_total:
                self._stopped = f"label.judge.max_tokens_total is {settings.max_tokens_total}"
            if self._stopped is not None or self._ending.is_set():
                return False
            self._under_way = self._with_call(needed, 1)
            return True

    def _release(self, asked: str) -> None:
        with self._lock:
            self._under_way = self._with_call(estimated_tokens(asked), -1)

    def _with_call(self, needed: int, sign: int) -> Spent:
        now = self._under_way
        return Spent(
            now.calls + sign,
            now.prompt_tokens + sign * needed,
            now.completion_tokens + sign * self.settings.max_tokens,
        )

    def _pause(self, seconds: float) -> None:
        wait(self._ending, seconds)

    def _give_up(self) -> None:
        """Store nothing any more, since whoever interrupted the work may have begun it again."""
        with self._lock:
            self._is_over = True

    def _question(self, comparison: Comparison, order: Order, marks: Marks) -> str:
        texts = [comparison.response_a.text, comparison.response_b.text]
        first, second = texts if order == "ab" else reversed(texts)
        return question(marks, comparison.prompt, first, second, self._rubric)

    def _key(self, comparison: Comparison, order: Order) -> str:
        """What a question is known by, whatever ids its pair has."""
        return hashlib.sha256(json.dumps([*self._asked, order, comparison.texts]).encode()).hexdigest()


def wait(ending: threading.Event, seconds: float) -> None:
    """Wait for some seconds, or until the work ends."""
    ending.wait(seconds)


def _read(reply: Mapping[str, Any]) -> Place:
    """Which place won by a stored reply; raises UnreadableReplyError where that can't be told."""
    if reply.get("too_long"):
        raise UnreadableReplyError("longer than the server takes")
    if reply["refusal"] or reply["finish_reason"] == "content_filter":
        raise UnreadableReplyError("refused")
    if reply["finish_reason"] != "stop":
        raise UnreadableReplyError("cut off" if reply["finish_reason"] == "length" else "not finished")
    counted = reply["prompt_tokens"]
    if counted and counted < reply["least_tokens"]:
        raise UnreadableReplyError("the server read a part of the question")
    return read_reply(reply["text"], Marks(*(reply[name] for name in ("case", "mark", "first", "second"))))


def verdict_of(judgement: Judgement) -> Verdict:
    """What is known of a pair as an answer; no preference where there is no verdict."""
    probability = judgement.probability
    if probability is None:
        return Verdict(judgement.pair_id, None, None, None)
    return Verdict(judgement.pair_id, judgement.preferred, probability, 1 - probability)


def _model(argument: str | None) -> str:
    if argument is None or not argument.strip():
        raise UsageError("the oracle does not say which model judges", hint="write `judge:MODEL`, or `mixed:MODEL`")
    return argument


def _sampling(settings: JudgeSettings) -> dict[str, Any]:
    return {
        "temperature": settings.temperature,
        "structured": settings.structured,
    }


def _rubric(settings: JudgeSettings) -> str:
    """What better means, by the file that the settings name or the template's own words."""
    if settings.rubric is None:
        return RUBRIC
    path = Path(settings.rubric).expanduser()
    try:
        if path.stat().st_size > LONGEST_RUBRIC:
            raise UsageError(f"the rubric `{path}` is longer than {LONGEST_RUBRIC} bytes")
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise OracleNotFoundError(
            f"there is no file `{path}`, which label.judge.rubric names", hint="or `--set label.judge.rubric=null`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the rubric `{path}` can't be read: {error}") from error
    if not text:
        raise UsageError(f"the rubric `{path}` is empty")
    return text
