"""Calls a server that speaks OpenAI's protocol: one question, one reply, and patience with what goes wrong on the way.

Address and key are the ones that the settings name, and no others: the client library would read a key, an address and
headers from variables that begin with OPENAI_, and send them to whatever server is asked.
"""

import importlib
import json
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from activedpo_cli.base.errors import ActiveDPOError, UsageError
from activedpo_cli.base.server_calls import (
    LONGEST_WAIT,
    NOTED_WAIT,
    TAKES_LATER,
    growing_pause,
    harmless,
    key_in,
    seconds_asked_for,
    without_key,
)
from activedpo_cli.base.server_url import is_on_this_machine
from activedpo_cli.base.settings import JudgeSettings

EXTRA = "judge"
REFUSES_SCHEMA = (400, 422)
MAY_BE_PAID = frozenset({408, 502, 504, 524})
"""Statuses by which something on the way gave up waiting for a server that may have done the work."""
NO_MONEY = "insufficient_quota"
NOT_ALLOWED = frozenset({"content_filter", "content_policy_violation", "invalid_prompt"})
"""Codes by which a server refuses one question for what stands in it, and may well take the next."""
UNSENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"})
"""How the client's HTTP library calls what went wrong before anything was sent."""
_TOO_LONG = re.compile(
    r"context.{0,20}(?:length|window|size)|maximum.{0,20}(?:context|tokens|length)"
    r"|too (?:long|many tokens)|exceeds?.{0,30}tokens",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Reply:
    """What a server said to one question; a count is None where the server gave none."""

    text: str
    finish_reason: str | None
    refusal: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str | None


class JudgeUnreachableError(ActiveDPOError):
    """The server gave no reply, or none that further calls could change; what was replied before is kept."""


class TooLongError(Exception):
    """The server takes no question of this length; nothing was replied."""


class NotAllowedError(Exception):
    """The server does not judge what stands in this question; nothing was replied."""


class NotAskedError(Exception):
    """No further call may be made: a limit is reached, or the work ends."""


class Calls(Protocol):
    """Counts the calls about one question."""

    def begin(self) -> None:
        """Count a call that is about to be made; raises NotAskedError where none may be."""

    def end(self, *, is_untaken: bool = False) -> None:
        """The call is over without a reply; `is_untaken` where it can't have cost anything."""


class _RefusedError(Exception):
    """The server answered with an HTTP status that says no."""

    def __init__(self, status: int, message: str, code: str | None, retry_after: str | None, place: str | None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.retry_after, self.place = retry_after, place


class _NoAnswerError(Exception):
    """No answer arrived, or not the whole of one; `was_sent` where the server may have read the question."""

    def __init__(self, message: str, *, was_sent: bool = True) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class JudgeClient:
    """Asks one model at one address.

    Args:
        model: Its name there.
        settings: Where, and how it is asked.
        pause: Waits for a number of seconds.
        tell: Hears what somebody who waits should know.
        clock: The time of day in seconds, by which a server may have said when to come back.

    """

    def __init__(
        self,
        model: str,
        settings: JudgeSettings,
        *,
        pause: Callable[[float], None],
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        if settings.base_url is None:
            raise UsageError(
                "label.judge.base_url says no server, and nobody is asked who was not named",
                hint="for instance `--set label.judge.base_url=http://127.0.0.1:8000/v1`",
            )
        self._model = model
        self._settings = settings
        self._base_url = settings.base_url
        self._key = key_in(settings.api_key_env, "label.judge.api_key_env")
        self._pause, self._tell, self._clock = pause, tell, clock
        self._uses_schema = settings.structured != "none"
        self._library, self._client = _open(settings, self._base_url, self._key)

    def ask(self, question: str, response_format: dict[str, Any], calls: Calls) -> Reply:
        """The reply to one question, however often it has to be put; the call that brought it is not ended.

        Raises:
            TooLongError: The server takes no question of this length.
            NotAllowedError: It takes none with such a content.
            NotAskedError: No call may be made, or none after one that failed.
            JudgeUnreachableError: There is no reply to be had.

        """
        failures = 0
        while True:
            with_schema = self._uses_schema
            calls.begin()
            try:
                return self._reply(self._post(question, response_format if with_schema else None))
            except _RefusedError as refused:
                calls.end(is_untaken=refused.status not in MAY_BE_PAID)
                if _is_too_long(refused):
                    raise TooLongError(refused.message) from None
                if refused.code in NOT_ALLOWED and 400 <= refused.status < 500:
                    raise NotAllowedError(refused.message) from None
                if with_schema and self._settings.structured == "auto" and refused.status in REFUSES_SCHEMA:
                    self._uses_schema = False
                    continue
                if not _may_pass(refused) or failures == self._settings.max_retries:
                    raise self._failure(refused) from None
                self._wait(refused, failures)
            except _NoAnswerError as error:
                calls.end(is_untaken=not error.was_sent)
                if failures == self._settings.max_retries:
                    raise JudgeUnreachableError(
                        f"the judge at {self._base_url} does not answer: {error}",
                        details=[f"it was asked {failures + 1} times; every reply before is kept"],
                        hint="see whether the server runs, and give the same command again",
                    ) from None
                self._pause(growing_pause(failures))
            failures += 1

    def _post(self, question: str, response_format: dict[str, Any] | None) -> Any:
        """The JSON value with which the server answers; raises _RefusedError or _NoAnswerError."""
        settings, openai = self._settings, self._library
        arguments: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": question}],
            settings.max_tokens_field: settings.max_tokens,
        }
        if settings.temperature is not None:
            arguments["temperature"] = settings.temperature
        if response_format is not None:
            arguments["response_format"] = response_format
        if self._key is None:
            arguments["extra_headers"] = {"Authorization": openai.Omit()}
        try:
            answer = self._client.chat.completions.with_raw_response.create(**arguments).http_response.json()
        except openai.APIStatusError as error:
            raise self._refused(error) from None
        except openai.APITimeoutError as error:
            raise _NoAnswerError(f"no byte for {settings.timeout:g} s", was_sent=_was_sent(error)) from None
        except openai.APIConnectionError as error:
            said = self._harmless(str(error.__cause__ or error))
            raise _NoAnswerError(said, was_sent=_was_sent(error)) from None
        except openai.OpenAIError as error:
            raise _NoAnswerError(self._harmless(str(error))) from None
        except (ValueError, RecursionError):
            raise _NoAnswerError("what came is no JSON") from None
        if isinstance(answer, dict) and answer.get("error") and not answer.get("choices"):
            raise _NoAnswerError(self._harmless(f"it reports {answer['error']}"))
        return answer

    def _refused(self, error: Any) -> _RefusedError:
        headers = error.response.headers
        body = error.body if isinstance(error.body, dict) else {}
        said = body.get("message") or body.get("detail") or error.response.text or error.message
        message = said if isinstance(said, str) else json.dumps(said)
        return _RefusedError(
            error.status_code,
            self._harmless(message),
            error.code if isinstance(error.code, str) else None,
            headers.get("retry-after"),
            headers.get("location"),
        )

    def _harmless(self, text: str) -> str:
        return harmless(text, self._key)

    def _reply(self, answer: Any) -> Reply:
        """The reply in an answer of which nothing can be taken for granted; an answer without a choice is an empty one."""
        answer = _dictionary(answer)
        choices = answer.get("choices")
        choice = _dictionary(choices[0]) if isinstance(choices, list) and choices else {}
        message, usage = _dictionary(choice.get("message")), _dictionary(answer.get("usage"))

        def text_of(value: Any) -> str | None:
            return without_key(value, self._key) if isinstance(value, str) else None

        return Reply(
            text=text_of(_whole_text(message.get("content"))) or "",
            finish_reason=text_of(choice.get("finish_reason")),
            refusal=text_of(message.get("refusal")),
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_replied(usage),
            model=text_of(answer.get("model")),
        )

    def _wait(self, refused: _RefusedError, failures: int) -> None:
        """Wait as the server asks, else for longer every time; raises JudgeUnreachableError for longer than one should."""
        asked = seconds_asked_for(refused.retry_after, self._clock)
        seconds = growing_pause(failures) if asked is None else asked
        if seconds > LONGEST_WAIT:
            raise JudgeUnreachableError(
                f"the judge at {self._base_url} asks to be left alone for {seconds / 3600:.1f} hours",
                details=[f"HTTP {refused.status}: {refused.message}"],
                hint="every reply so far is kept; give the same command again by then",
            )
        if seconds >= NOTED_WAIT:
            self._tell(f"the judge's server takes no call for {seconds:.0f} s (HTTP {refused.status}); waiting")
        self._pause(seconds)

    def _failure(self, refused: _RefusedError) -> ActiveDPOError:
        hints = {
            401: "name the variable that holds its key: `--set label.judge.api_key_env=NAME`",
            403: "name the variable that holds its key: `--set label.judge.api_key_env=NAME`",
            404: "look at the model's name behind `judge:`, and whether label.judge.base_url ends with /v1",
            **dict.fromkeys(
                REFUSES_SCHEMA,
                "a model that knows no temperature, or calls the limit otherwise: `--set label.judge.temperature=null`, "
                "`--set label.judge.max_tokens_field=max_completion_tokens`; without a schema: "
                "`--set label.judge.structured=none`",
            ),
        }
        moved = [f"it points to {self._harmless(refused.place)}, where nothing was sent"] if refused.place else []
        return JudgeUnreachableError(
            f"the judge at {self._base_url} refuses: HTTP {refused.status}",
            details=[refused.message, *moved, "every reply before is kept"],
            hint=hints.get(refused.status, "give the same command again once the server takes calls"),
        )


def _open(settings: JudgeSettings, base_url: str, key: str | None) -> tuple[Any, Any]:
    """The library, and its client for this address alone."""
    with _without_variables("OPENAI_"):
        try:
            openai = importlib.import_module("openai")
        except ModuleNotFoundError as error:
            raise ActiveDPOError(
                f"the oracles judge and mixed need the package `{error.name}`, which is not installed",
                hint=f"pip install 'activedpo-cli[{EXTRA}]'",
            ) from error
        is_near = is_on_this_machine(base_url)
        http = openai.DefaultHttpxClient(
            follow_redirects=False,
            trust_env=not is_near,  # a proxy is for what is beyond this machine
            timeout=settings.timeout,
            **({"verify": _trusting_nobody()} if is_near and base_url.startswith("http://") else {}),
        )
        client = openai.OpenAI(
            api_key=key or "none",  # a call without a key leaves this out
            base_url=base_url,
            max_retries=0,
            timeout=settings.timeout,
            http_client=http,
        )
    return openai, client


def _trusting_nobody() -> ssl.SSLContext:
    """Stands where plain http needs no certificates; reading those of the system takes a tenth of a second."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@contextmanager
def _without_variables(prefix: str) -> Iterator[None]:
    """Hide the environment variables whose name begins so."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(prefix)}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _was_sent(error: Exception) -> bool:
    """Whether a question may have arrived; it can't where no connection came about."""
    return type(error.__cause__).__name__ not in UNSENT


def _is_too_long(refused: _RefusedError) -> bool:
    if refused.status == 413:
        return True
    said = f"{refused.code or ''} {refused.message}"
    return refused.status in REFUSES_SCHEMA and _TOO_LONG.search(said.replace("_", " ")) is not None


def _may_pass(refused: _RefusedError) -> bool:
    """Whether the same call may be taken later."""
    return (refused.status in TAKES_LATER and refused.code != NO_MONEY) or refused.status >= 500


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole_text(content: Any) -> Any:
    """The content as one text; of parts, as some reasoning models give it, those that are text and no thinking."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in map(_dictionary, content) if part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def _replied(usage: dict[str, Any]) -> int | None:
    """Tokens of a reply with its thinking, which some servers count in the total alone."""
    asked, replied, total = (_count(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    if replied is None or asked is None or total is None:
        return replied
    return max(replied, total - asked)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
