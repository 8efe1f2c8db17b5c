"""Calls a server that speaks OpenAI's protocol for completions: what it serves, an adapter to load, tokens to complete.

Address and key are the ones that the settings name. Nothing that an answer holds is taken for granted.
"""

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
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
)
from activedpo_cli.base.server_url import crosses_network_unencrypted, is_on_this_machine
from activedpo_cli.base.settings import GenerateSettings
from activedpo_cli.base.version import __version__

MAX_RETRIES = 4
"""Times that a call is made again which the server did not take."""
IN_TROUBLE = 500
"""HTTP statuses from here on say that the server, and not the call, is at fault."""
BEHIND_A_GATEWAY = (502, 503, 504)
KEPT = "every response before is kept"


class ServerError(ActiveDPOError):
    """The server gave nothing that can be used; what was sampled before is kept."""


class RefusedCallError(Exception):
    """The server answered with an HTTP status that says no."""

    def __init__(self, status: int, message: str, retry_after: str | None, place: str | None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after, self.place = status, message, retry_after, place


class _NoAnswerError(Exception):
    """No answer arrived, or not the whole of one."""


@dataclass(frozen=True)
class ServedModel:
    """A name that the server answers by; `parent` is the name of its base where it is an adapter."""

    name: str
    parent: str | None
    longest: int | None


@dataclass(frozen=True)
class Address:
    """Where a server is.

    Attributes:
        url: The address, with `/v1`.
        key: What it wants to see; None where it wants nothing.
        timeout: Seconds without a byte after which a call is given up.
        called: What messages call it; None names the address.

    """

    url: str
    key: str | None
    timeout: float
    called: str | None = None


def address_of(settings: GenerateSettings) -> Address:
    """The address that settings name; raises UsageError where they name none, or the key can't be sent safely."""
    if settings.server_url is None:
        raise UsageError(
            "generate.server_url says no server, and nobody is asked who was not named",
            hint="for instance `--server-url http://127.0.0.1:8000/v1`",
        )
    key = key_in(settings.server_api_key_env, "generate.server_api_key_env")
    if key is not None and crosses_network_unencrypted(settings.server_url):
        raise UsageError(
            f"the key in `{settings.server_api_key_env}` would cross the network unencrypted to {settings.server_url}",
            hint="use https, or a tunnel with `ssh -L` and http://127.0.0.1; or a server that wants no key: "
            "`--set generate.server_api_key_env=null`",
        )
    return Address(settings.server_url, key, settings.server_timeout)


class CompletionsServer:
    """A server at one address.

    Args:
        address: Where it is, and how long it is waited for.
        tell: Hears what somebody who waits should know.
        ending: Is set when nothing is to be waited for any more.

    """

    def __init__(self, address: Address, *, tell: Callable[[str], None], ending: threading.Event) -> None:
        self.url, self._key, self._timeout = address.url, address.key, address.timeout
        self.called = address.called or f"the server at {address.url}"
        self._tell, self._ending = tell, ending
        proxies = urllib.request.ProxyHandler({} if is_on_this_machine(self.url) else None)
        self._opener = urllib.request.build_opener(proxies, _NoRedirects())

    def models(self) -> list[ServedModel]:
        """What it serves; raises ServerError where it can't be asked."""
        answer = self._patiently("/models", None)
        rows = answer.get("data")
        if not isinstance(rows, list):
            raise ServerError(
                f"{self.url}/models gives no list of models",
                hint="look at generate.server_url: it usually ends with /v1, and the server has to speak OpenAI's protocol",
            )
        return [_served(row) for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]

    def is_up(self, name: str) -> bool:
        """Whether it answers by now, and serves a model by that name."""
        try:
            rows = self._send("/models", None).get("data")
        except (RefusedCallError, _NoAnswerError):
            return False
        return isinstance(rows, list) and any(isinstance(row, dict) and row.get("id") == name for row in rows)

    def load_adapter(self, name: str, folder: str) -> None:
        """Let the server load an adapter from a folder that it can read; raises RefusedCallError or ServerError."""
        body = {"lora_name": name, "lora_path": folder}
        self._patiently("/load_lora_adapter", body, may_pass=_only_gateways, raises=True)

    def complete(self, body: dict[str, Any], *, raises: bool = False) -> dict[str, Any]:
        """The answer to one request; raises ServerError, or, if so asked, RefusedCallError for what it refuses."""
        return self._patiently("/completions", body, raises=raises)

    def harmless(self, value: Any) -> str:
        """What the server says, short, without the key, and safe to show."""
        return harmless(value if isinstance(value, str) else json.dumps(value), self._key)

    def failure(self, refused: RefusedCallError) -> ServerError:
        """What to say of a call that was refused."""
        hints = {
            401: "name the variable that holds its key: `--set generate.server_api_key_env=NAME`",
            403: "name the variable that holds its key: `--set generate.server_api_key_env=NAME`",
            404: "look whether generate.server_url ends with /v1; a server that was started again has forgotten its "
            "adapters, and the same command loads the one that is needed",
        }
        moved = [f"it points to {self.harmless(refused.place)}, where nothing was sent"] if refused.place else []
        return ServerError(
            f"{self.called} refuses: HTTP {refused.status}",
            details=[refused.message, *moved, KEPT],
            hint=hints.get(refused.status, "its own log says more; give the same command again once it takes calls"),
        )

    def _patiently(
        self,
        path: str,
        body: dict[str, Any] | None,
        *,
        may_pass: "Callable[[RefusedCallError], bool] | None" = None,
        raises: bool = False,
    ) -> dict[str, Any]:
        """The JSON object of an answer, however often it has to be asked for."""
        may_pass = _may_pass if may_pass is None else may_pass
        failures = 0
        while True:
            try:
                return self._send(path, body)
            except RefusedCallError as refused:
                if not may_pass(refused) or failures == MAX_RETRIES or self._ending.is_set():
                    raise refused if raises else self.failure(refused) from None
                self._wait(refused, failures)
            except _NoAnswerError as error:
                if failures == MAX_RETRIES or self._ending.is_set():
                    raise ServerError(
                        f"{self.called} does not answer: {error}",
                        details=[f"{path} was asked {failures + 1} times; {KEPT}"],
                        hint="see whether it runs and has finished loading, and give the same command again",
                    ) from None
                self._ending.wait(growing_pause(failures))
            failures += 1

    def _wait(self, refused: RefusedCallError, failures: int) -> None:
        """Wait as the server asks, else for longer every time; raises ServerError for longer than one should."""
        asked = seconds_asked_for(refused.retry_after, time.time)
        seconds = growing_pause(failures) if asked is None else asked
        if seconds > LONGEST_WAIT:
            raise ServerError(
                f"{self.called} asks to be left alone for {seconds / 3600:.1f} hours",
                details=[f"HTTP {refused.status}: {refused.message}", KEPT],
                hint="give the same command again by then",
            )
        if seconds >= NOTED_WAIT:
            self._tell(f"the server takes no call for {seconds:.0f} s (HTTP {refused.status}); waiting")
        self._ending.wait(seconds)

    def _send(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """One call; raises RefusedCallError or _NoAnswerError."""
        headers = {"Accept": "application/json", "User-Agent": f"activedpo/{__version__}"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                raw = answer.read()
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except urllib.error.URLError as error:
            raise _NoAnswerError(self._reason(error.reason)) from None
        except (OSError, http.client.HTTPException) as error:
            raise _NoAnswerError(self._reason(error)) from None
        return self._object(raw, path)

    def _object(self, raw: bytes, path: str) -> dict[str, Any]:
        if path == "/load_lora_adapter":  # a line of text says that it is done
            return {}
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            raise _NoAnswerError("what came is no JSON, or not the whole of it") from None
        if not isinstance(answer, dict):
            raise _NoAnswerError("what came is no JSON object")
        if answer.get("error"):
            raise _NoAnswerError(self.harmless(f"it reports {answer['error']}"))
        return answer

    def _refused(self, error: urllib.error.HTTPError) -> RefusedCallError:
        try:
            text = error.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            text = ""
        said: Any = text
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            inner = found["error"] if isinstance(found.get("error"), dict) else found
            said = inner.get("message") or inner.get("detail") or found.get("error") or text
        headers = error.headers
        return RefusedCallError(
            error.code, self.harmless(said or error.reason), headers.get("retry-after"), headers.get("location")
        )

    def _reason(self, reason: Any) -> str:
        if isinstance(reason, TimeoutError):
            return f"no byte for {self._timeout:g} s"
        return self.harmless(str(reason) or type(reason).__name__)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Sends nothing to a place that was not named."""

    def redirect_request(self, *args: Any) -> None:
        return None


def base_model(server: CompletionsServer, models: Sequence[ServedModel], wanted: str | None, own: str) -> ServedModel:
    """The served model that is to be π_ref: the one that is wanted, else the only base; names with `own` in front are ours.

    Raises UsageError where it can't be told.
    """
    bases = [model for model in models if model.parent is None and not model.name.startswith(own)]
    names = ", ".join(f"`{server.harmless(model.name)}`" for model in bases) or "none"
    if wanted is not None:
        found = next((model for model in models if model.name == wanted), None)
        if found is None:
            raise UsageError(
                f"{server.called} serves no model by the name `{wanted}`, which generate.server_model gives",
                details=[f"base models there: {names}"],
                hint="--server-model NAME, or `--set generate.server_model=null` where it serves only one",
            )
        return found
    if len(bases) != 1:
        raise UsageError(
            f"which model of {server.called} is the base can't be told",
            details=[f"base models there: {names}"],
            hint="--server-model NAME",
        )
    return bases[0]


def _served(row: dict[str, Any]) -> ServedModel:
    parent, longest = row.get("parent"), row.get("max_model_len")
    return ServedModel(
        name=row["id"],
        parent=parent if isinstance(parent, str) else None,
        longest=longest if isinstance(longest, int) and longest > 0 else None,
    )


def _may_pass(refused: RefusedCallError) -> bool:
    return refused.status in TAKES_LATER or refused.status >= IN_TROUBLE


def _only_gateways(refused: RefusedCallError) -> bool:
    """An adapter that can't be loaded is answered with status 500 by some servers, which no second try changes."""
    return refused.status in TAKES_LATER or refused.status in BEHIND_A_GATEWAY
