"""Calls a server that speaks OpenAI's protocol: one question, one reply, and patience with what goes wrong on the way.

Address and key are the ones that the settings name, and no others: the client library would read a key, an address and
headers from variables that begin with OPENAI_, and send them to whatever server is asked.
"""

import importlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
NO_MONEY = "insufficient_quota"
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


class _RefusedError(Exception):
    """The server answered with an HTTP status that says no."""

    def __init__(self, status: int, message: str, code: str | None, retry_after: str | None, place: str | None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.retry_after, self.place = retry_after, place


class _NoAnswerError(Exception):
    """No answer arrived, or not the whole of one."""


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

    def ask(self, question: str, response_format: dict[str, Any]) -> Reply:
        """The reply to one question, however often it has to be put.

        Raises:
            TooLongError: The server takes no question of this length.
            JudgeUnreachableError: There is no reply to be had.

        """
        failures = 0
        while True:
            with_schema = self._uses_schema
            try:
                return self._reply(self._post(question, response_format if with_schema else None))
            except _RefusedError as refused:
                if _is_too_long(refused):
                    raise TooLongError(refused.message) from None
                if with_schema and self._settings.structured == "auto" and refused.status in REFUSES_SCHEMA:
                    self._uses_schema = False
                    continue
                if not _may_pass(refused) or failures == self._settings.max_retries:
                    raise self._failure(refused) from None
                self._wait(refused, failures)
            except _NoAnswerError as error:
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
        except openai.APITimeoutError:
            raise _NoAnswerError(f"no byte for {settings.timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise _NoAnswerError(self._harmless(str(error.__cause__ or error))) from None
        except openai.OpenAIError as error:
            raise _NoAnswerError(self._harmless(str(error))) from None
        except ValueError:
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
            error.code,
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
            text=text_of(message.get("content")) or "",
            finish_reason=text_of(choice.get("finish_reason")),
            refusal=text_of(message.get("refusal")),
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
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
        http = openai.DefaultHttpxClient(
            follow_redirects=False,
            trust_env=not is_on_this_machine(base_url),  # a proxy is for what is beyond this machine
            timeout=settings.timeout,
        )
        client = openai.OpenAI(
            api_key=key or "none",  # a call without a key leaves this out
            base_url=base_url,
            max_retries=0,
            timeout=settings.timeout,
            http_client=http,
        )
    return openai, client


@contextmanager
def _without_variables(prefix: str) -> Iterator[None]:
    """Hide the environment variables whose name begins so."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(prefix)}
    try:
        yield
    finally:
        os.environ.update(hidden)


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


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
