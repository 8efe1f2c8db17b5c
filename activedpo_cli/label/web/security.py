"""What a request has to be like before anything is done for it, and what every response says to the browser.

A page on another port of this machine, or under a name that an attacker points at it, can send requests to this server from
the browser of somebody who labels. Host, Origin, Sec-Fetch-Site and content type tell such requests apart.
"""

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.loopback import is_loopback

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")
"""The paths that browsers leave as they are; by another spelling the cookie would not come back."""
LARGEST_BODY = 64 * 1024
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class TurnedAwayError(Exception):
    """A request that nothing is done for: `status` and one sentence for whoever reads the response.

    `is_stranger` says that all that is wrong is that nobody knows who asks, which a person mends by opening their address.
    """

    def __init__(self, status: int, message: str, *, is_stranger: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.is_stranger = is_stranger


@dataclass(frozen=True)
class Door:
    """Under which names the server may be asked.

    Attributes:
        hosts: Hosts without their ports, since a tunnel changes those.
        public: The address by which a proxy is reached, without a slash at its end; None without one.

    """

    hosts: frozenset[str]
    public: SplitResult | None = None

    @property
    def prefix(self) -> str:
        """The path of the public address."""
        return self.public.path if self.public else ""

    @property
    def is_secure(self) -> bool:
        """Whether browsers may send the cookie through TLS alone."""
        return self.public is not None and self.public.scheme == "https"

    def check_host(self, host: str) -> None:
        """Raise TurnedAwayError where the server is asked under a name that is not its own."""
        if _without_port(host) not in self.hosts:
            raise TurnedAwayError(400, "this server does not answer under that name")

    def check_sender(self, request: "Request") -> None:
        """Raise TurnedAwayError where a request is not from the page itself."""
        origin = f"{self.public.scheme}://{self.public.netloc}" if self.public else f"http://{request.headers['host']}"
        if request.headers.get("origin", "").lower() != origin.lower():
            raise TurnedAwayError(403, "this is not from the page of this server (Origin)")
        if request.headers.get("sec-fetch-site") != "same-origin":
            raise TurnedAwayError(403, "this is not from the page of this server (Sec-Fetch-Site)")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise TurnedAwayError(400, "the body has to be JSON (Content-Type)")


def door_for(host: str, public_url: str | None) -> Door:
    """The door of a server that listens at `host`, behind a proxy at `public_url`.

    Raises UsageError where texts or tokens would cross a network as they are.
    """
    public = _public(public_url) if public_url else None
    is_plain = public is None or public.scheme == "http"
    if is_plain and not (is_loopback(host) and (public is None or is_loopback(public.hostname or ""))):
        raise UsageError(
            "labels and tokens would cross the network readable by all",
            details=["http is for this machine alone"],
            hint="leave --host out and reach the page by `ssh -L`, or put a proxy with TLS before it: "
            "--public-url https://…",
        )
    own = {_bracketed(host.lower())} if is_loopback(host) else set()
    return Door(LOOPBACK | own | ({_bracketed(public.hostname or "")} if public else set()), public)


def guarded(app: "ASGIApp", door: Door) -> "ASGIApp":
    """An application that answers under its own names alone, and whose every response carries HEADERS."""

    async def guard(scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            return

        async def with_headers(message: "Message") -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        try:
            door.check_host(_header(scope, b"host"))
        except TurnedAwayError as error:
            await _answer(with_headers, error.status, error.message.encode())
            return
        path = scope["path"]
        if door.prefix and path == door.prefix:  # else the page would look for its files one folder further up
            await _answer(with_headers, 308, b"", (b"location", f"{door.prefix}/".encode()))
            return
        if door.prefix and path.startswith(f"{door.prefix}/"):
            scope = {**scope, "path": path.removeprefix(door.prefix)}  # of a proxy that leaves the path whole
        await app(scope, receive, with_headers)

    return guard


async def body_of(request: "Request") -> dict[str, Any]:
    """The JSON object of a request; raises TurnedAwayError where it is too large or is none."""
    too_large = TurnedAwayError(400, f"the body is larger than {LARGEST_BODY:,} bytes")
    if request.headers.get("content-length", "0").isdigit() and (
        int(request.headers.get("content-length", "0")) > LARGEST_BODY
    ):
        raise too_large
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > LARGEST_BODY:
            raise too_large
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TurnedAwayError(400, "the body is no JSON") from error
    if not isinstance(found, dict):
        raise TurnedAwayError(400, "the body is no JSON object")
    return found


async def _answer(send: "Send", status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    own = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})


def _public(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_whole = False
    if not is_whole or parts.query or parts.fragment or "@" in parts.netloc:
        raise UsageError(
            f"--public-url takes the address of the page, not `{text}`", hint="--public-url https://x.org/y"
        )
    try:
        host = _bracketed((parts.hostname or "").encode("idna").decode())  # browsers send it so
    except UnicodeError as error:
        raise UsageError(f"--public-url names no host in `{text}`", hint="--public-url https://x.org/y") from error
    if not _PATH.fullmatch(parts.path) or {".", ".."} & set(parts.path.split("/")):
        raise UsageError(
            f"the path of --public-url is not spelled as every browser sends it: `{parts.path}`",
            hint="a path of letters, digits and - . _ ~, such as /team",
        )
    port = "" if parts.port in (None, {"http": 80, "https": 443}[parts.scheme]) else f":{parts.port}"
    return parts._replace(netloc=host + port, path=parts.path.rstrip("/"))


def _header(scope: "Scope", name: bytes) -> str:
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else ""


def _without_port(host: str) -> str:
    host = host.lower()
    if host.startswith("["):
        name, bracket, port = host.partition("]")
        return name + bracket if bracket and (not port or port.startswith(":")) else ""
    return host.partition(":")[0]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
