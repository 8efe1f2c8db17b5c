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
from activedpo_cli.oracles._judge_client import JudgeClient, NotAllowedError, NotAskedError, Reply, TooLongError
from activedpo_cli.oracles._judge_limits import Allowance, QuestionCalls
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
from activedpo_cli.oracles.base import Comparison, Judgement, Preferred, ReplyMemory, SeedOfPair, Verdict

ASKS_PEOPLE = False
SCORES_TEXT = False
KEEPS_REPLIES = True
LONGEST_RUBRIC = 2**16
TOO_LONG, CUT_OFF = "longer than the server takes", "cut off"
"""Two reasons why there is no verdict, about which something can be done."""

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
        self._allowance = Allowance(settings, memory, self._ending)

    @property
    def stopped(self) -> str | None:
        """The limit that was reached, None where none was."""
        return self._allowance.stopped

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
        if any(self._open_orders(comparison) for comparison in comparisons):
            self.prepare()
        self._ending.clear()
        return each_in_order(
            self._judged, comparisons, self.settings.concurrency, ending=self._ending, give_up=self._give_up
        )

    def judgements(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """What is known of pairs by the replies that are kept."""
        return [self._known(comparison) for comparison in comparisons]

    def calls_to_come(self, comparisons: Sequence[Comparison]) -> tuple[int, int]:
        """Calls that are needed if every reply can be read, without those whose tries are used up; about how many tokens."""
        open_questions = [(comparison, order) for comparison in comparisons for order in self._open_orders(comparison)]
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

    def _open_orders(self, comparison: Comparison) -> list[Order]:
        """The orders in which a pair is still to be asked about."""
        return [order for order in ORDERS if self._is_open(comparison, order)]

    def _is_open(self, comparison: Comparison, order: Order) -> bool:
        """Whether there is no answer yet, and a try is left."""
        if self._winner(comparison, order, Counter()) is not None:
            return False
        return len(self._memory.replies(self._key(comparison, order))) < self.settings.tries

    def _ask_in(self, comparison: Comparison, order: Order) -> None:
        key = self._key(comparison, order)
        while self._is_open(comparison, order):
            marks = fresh_marks()
            asked = self._question(comparison, order, marks)
            calls = QuestionCalls(self._allowance, asked)
            about = {
                "pair_id": comparison.pair_id,
                "order": order,
                **asdict(marks),
                "least_tokens": least_tokens(asked),
            }
            try:
                assert self._client is not None
                reply = self._client.ask(asked, response_format(marks), calls)
                self._keep(key, {**about, "call": calls.call, **asdict(reply), **_estimates(asked, reply)})
            except (TooLongError, NotAllowedError) as error:
                self._keep(key, {**about, "too_long" if isinstance(error, TooLongError) else "not_allowed": True})
                return
            except NotAskedError:
                return
            finally:
                calls.end()

    def _keep(self, key: str, record: dict[str, Any]) -> None:
        with self._lock:
            if not self._is_over:
                self._memory.keep(key, record)

    def _pause(self, seconds: float) -> None:
        """Wait before a call is made again; raises NotAskedError where the work ends meanwhile."""
        wait(self._ending, seconds)
        if self._ending.is_set():
            raise NotAskedError

    def _give_up(self) -> None:
        """Store nothing any more, since whoever interrupted the work may have begun it again."""
        with self._lock:
            self._is_over = True
        self._allowance.give_up()

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


def _estimates(asked: str, reply: Reply) -> dict[str, int]:
    """About how many tokens a call took, where the server did not count them."""
    found = {} if reply.prompt_tokens else {"estimated_tokens": estimated_tokens(asked)}
    return found if reply.completion_tokens else found | {"estimated_reply_tokens": estimated_tokens(reply.text)}


def _read(reply: Mapping[str, Any]) -> Place:
    """Which place won by a stored reply; raises UnreadableReplyError where that can't be told."""
    if reply.get("too_long"):
        raise UnreadableReplyError(TOO_LONG)
    if reply.get("not_allowed") or reply["refusal"] or reply["finish_reason"] == "content_filter":
        raise UnreadableReplyError("refused")
    if reply["finish_reason"] != "stop":
        raise UnreadableReplyError(CUT_OFF if reply["finish_reason"] == "length" else "not finished")
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
