"""How much a judge may be asked: every call is counted before it is made, and none is made beyond the limits."""

import secrets
import threading

from activedpo_cli.base.records import Spent
from activedpo_cli.base.settings import JudgeSettings
from activedpo_cli.oracles._judge_client import NotAskedError
from activedpo_cli.oracles._judge_prompt import estimated_tokens
from activedpo_cli.oracles.base import ReplyMemory


class Allowance:
    """What is left of the limits, for several callers at once.

    A call counts with all that it may cost until its reply is kept. So where calls under way may cost more than there is
    left, it is waited for what they did cost.

    Args:
        settings: The limits.
        memory: What was asked before, and where calls are noted.
        ending: Set where no further call is wanted.

    """

    def __init__(self, settings: JudgeSettings, memory: ReplyMemory, ending: threading.Event) -> None:
        self._settings = settings
        self._memory = memory
        self._ending = ending
        self._changed = threading.Condition()
        self._under_way: set[str] = set()
        self._is_over = False
        self.stopped: str | None = None

    def begin(self, asked: str) -> str:
        """The name of a call that may now be made; raises NotAskedError where none may."""
        at_most = Spent(1, estimated_tokens(asked), self._settings.max_tokens)
        with self._changed:
            while not (self._is_over or self._ending.is_set() or self.stopped):
                reached = self._limit_reached_by(self._memory.spent() + at_most)
                if reached is None:
                    call = secrets.token_hex(8)
                    self._memory.sent(call, at_most)
                    self._under_way.add(call)
                    return call
                if self._under_way:
                    self._changed.wait()
                else:
                    self.stopped = reached
        raise NotAskedError

    def end(self, call: str, *, is_untaken: bool = False) -> None:
        """The call is over: its reply is kept, or will never come, or the server did not take it."""
        with self._changed:
            try:
                if is_untaken and not self._is_over:
                    self._memory.untaken(call)
            finally:
                self._under_way.discard(call)
                self._changed.notify_all()

    def give_up(self) -> None:
        """Note nothing any more, since whoever interrupted the work may have begun it again."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _limit_reached_by(self, spent: Spent) -> str | None:
        most_calls, most_tokens = self._settings.max_calls, self._settings.max_tokens_total
        if most_calls is not None and spent.calls > most_calls:
            return f"label.judge.max_calls is {most_calls}"
        if most_tokens is not None and spent.tokens > most_tokens:
            return f"label.judge.max_tokens_total is {most_tokens}"
        return None


class QuestionCalls:
    """The calls about one question, one after the other; `call` is the one that is under way."""

    def __init__(self, allowance: Allowance, asked: str) -> None:
        self._allowance = allowance
        self._asked = asked
        self.call: str | None = None

    def begin(self) -> None:
        """Count a call that is about to be made; raises NotAskedError where none may be."""
        self.call = self._allowance.begin(self._asked)

    def end(self, *, is_untaken: bool = False) -> None:
        """The call is over, if one is under way."""
        call, self.call = self.call, None
        if call is not None:
            self._allowance.end(call, is_untaken=is_untaken)
