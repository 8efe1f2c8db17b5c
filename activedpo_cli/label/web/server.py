"""Run the page: make it ready, say where it is, serve until all is answered or somebody ends it."""

import asyncio
import getpass
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from activedpo_cli.base.display import display_text
from activedpo_cli.base.errors import ActiveDPOError, Terminated, UsageError
from activedpo_cli.base.loopback import is_loopback
from activedpo_cli.engine.step import Context
from activedpo_cli.label.questions import Question
from activedpo_cli.label.queue import Queue
from activedpo_cli.label.sittings import StageLeftError
from activedpo_cli.label.web.access import Access, open_access, remember_port
from activedpo_cli.label.web.app import Page
from activedpo_cli.label.web.desk import Desk
from activedpo_cli.label.web.security import Door, door_for

ENDING_SECONDS = 10.0
"""How long the page stays after the last answer, for whoever wants to take it back."""
LOOK_SECONDS = 5.0
"""How often the server looks whether another command has answered the rest, or closed the stage."""
GRACE_SECONDS = 3
PLAIN_STEP = 10
"""Answers after which a line is written where none can be drawn over."""
NOT_SAVED = "not saved, the page tries again"


@dataclass(frozen=True, kw_only=True)
class WebOptions:
    """Where the page is, and for whom."""

    host: str = "127.0.0.1"
    port: int = 0
    public_url: str | None = None
    people: Sequence[str]
    guidelines: str | None = None


def require_web(options: WebOptions) -> Door:
    """The door for these options.

    Raises UsageError where they can't be meant, and ActiveDPOError where the packages are missing.
    """
    door = door_for(options.host, options.public_url)
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise ActiveDPOError(
            f"--web needs the package `{error.name}`, which is not installed",
            hint="pip install 'activedpo-cli[web]', or label in the terminal without --web",
        ) from error
    return door


def label_on_the_web(context: Context, asked: Sequence[Question], queue: Queue, options: WebOptions) -> None:
    """Serve the page until everything is answered or Ctrl-C.

    Raises:
        UsageError: The options can't be meant.
        ActiveDPOError: A package is missing, or the port is taken.
        StageLeftError: Another command closed the stage.
        Terminated: SIGTERM, or the terminal was closed.

    """
    door = require_web(options)
    access = open_access(context.run, options.people)
    desk = Desk(queue, asked, access, seed=context.settings.seed, guidelines=options.guidelines)
    if desk.progress()["is_done"]:
        return
    terminal = ServerTerminal(desk)
    with closing(_socket(options, access.port)) as listening:
        port = listening.getsockname()[1]
        if options.port == 0 and access.port not in (None, port):
            terminal.say(
                f"port {access.port}, where the page was last time, is taken, so it is at {port} now: pages that are open "
                f"do not find it there, and answers that wait in them are sent once --port {access.port} is served again"
            )
        remember_port(context.run, port)
        Serving(desk, access, door, terminal).run(listening, addresses(access, door, options.host, port))


class ServerTerminal:
    """What the person who runs the server sees, on stderr."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._redraws = sys.stderr.isatty()
        self._is_line_open = False
        self._last = -1
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        """Lines, below the one that is drawn over."""
        end = "\n" if self._is_line_open else ""
        self._is_line_open = False
        self._write(f"{end}{display_text(text)}\n")

    def say_once(self, text: str) -> None:
        """The same, unless it was said before, as while many requests meet one fault."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def is_well_again(self) -> None:
        """Let a fault that comes back later be said again."""
        self._said.clear()

    def progress(self, answered: int, pairs: int) -> None:
        """`12 of 50 answered (ann 7, bo 5)`, in one line where it can be drawn over."""
        if answered == self._last:
            return
        is_step = self._last < 0 or answered // PLAIN_STEP != self._last // PLAIN_STEP or answered == pairs
        who = ", ".join(f"{name} {count}" for name, count in self._desk.answers_by.items() if count)
        line = display_text(f"{answered} of {pairs} answered" + (f" ({who} now)" if who else ""))
        if self._redraws:
            self._write(f"\r\x1b[2K{line[: shutil.get_terminal_size().columns - 1]}")
            self._is_line_open = True
        elif is_step:
            self.say(line)
        self._last = answered

    def end(self) -> None:
        """Leave the line that is drawn over."""
        if self._is_line_open:
            self._write("\n")
            self._is_line_open = False

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the terminal may be gone, and that is no reason to call an answer unsaved
            sys.stderr.write(text)
            sys.stderr.flush()


class Serving:
    """One run of the server."""

    def __init__(self, desk: Desk, access: Access, door: Door, terminal: ServerTerminal) -> None:
        self._desk = desk
        self._terminal = terminal
        self._page = Page(desk, access, door, changed=self._changed, failed=self._failed)
        self._signal: int | None = None
        self._left: StageLeftError | None = None
        self._done_since: float | None = None
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = time.monotonic()

    def run(self, listening: socket.socket, opening: str = "") -> None:
        """Say `opening` and serve until the end; raises what ended it, unless that was the last answer or Ctrl-C."""
        import uvicorn

        serving = self

        class Server(uvicorn.Server):
            """Uvicorn's, whose signals are ours: it would raise them again behind our back."""

            @contextmanager
            def capture_signals(self) -> Iterator[None]:
                yield

            async def on_tick(self, counter: int) -> bool:
                serving._look_around()
                self.should_exit = self.should_exit or serving._is_over()
                return await super().on_tick(counter)

        config = uvicorn.Config(
            self._page.application(),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        progress = self._desk.progress()
        with self._signals_end_it():
            try:
                if opening:
                    self._terminal.say(opening)
                self._terminal.progress(progress["answered"], progress["pairs"])
                Server(config).run(sockets=[listening])
            finally:
                self._page.close()
                self._terminal.end()
        if self._left is not None:
            raise self._left
        if self._signal not in (None, signal.SIGINT):
            raise Terminated

    def stop(self, number: int = signal.SIGINT) -> None:
        """End as this signal does: what is being stored is stored first."""
        self._signal = number

    def _look_around(self) -> None:
        """See from time to time what other commands have done; called by the event loop, which goes on meanwhile."""
        is_looking = self._looking is not None and not self._looking.done()
        if not is_looking and time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._looking = asyncio.create_task(self._page.look_around())

    def _is_over(self) -> bool:
        is_done = self._done_since is not None and time.monotonic() - self._done_since >= ENDING_SECONDS
        return self._signal is not None or self._left is not None or is_done

    def _changed(self, progress: Mapping[str, Any]) -> None:
        if progress.get("saved"):
            self._terminal.is_well_again()
        self._terminal.progress(progress["answered"], progress["pairs"])
        if not progress["is_done"]:
            self._done_since = None
        elif self._done_since is None:
            self._done_since = time.monotonic()
            self._terminal.say(f"all is answered; the page closes in {ENDING_SECONDS:.0f} s")

    def _failed(self, error: Exception) -> None:
        if isinstance(error, StageLeftError):
            self._left = error
        elif isinstance(error, ActiveDPOError):
            self._terminal.say_once("\n".join([f"{NOT_SAVED}: {error.message}", *error.details, *_hint(error)]))
        elif isinstance(error, OSError):
            self._terminal.say_once(f"{NOT_SAVED}: {type(error).__name__}: {error}")
        else:
            trace = "".join(traceback.format_exception(error)).rstrip()
            self._terminal.say_once(f"{trace}\na fault of activedpo itself, please report it; the page tries again")

    @contextmanager
    def _signals_end_it(self) -> Iterator[None]:
        """Let a signal end the server once what is being stored is stored; a second one ends the process, as elsewhere."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def heard(number: int, frame: FrameType | None) -> None:
            self.stop(number)

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            if before[number] is not signal.SIG_IGN:
                signal.signal(number, heard)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _hint(error: ActiveDPOError) -> list[str]:
    return [f"hint: {error.hint}"] if error.hint else []


def _socket(options: WebOptions, last_port: int | None) -> socket.socket:
    """A socket at the port; where any will do, at that of last time, which open pages know."""
    if options.port == 0 and last_port:
        try:
            return _bound(options.host, last_port)
        except OSError:
            pass
    try:
        return _bound(options.host, options.port)
    except socket.gaierror as error:
        raise UsageError(f"there is no host `{options.host}` to listen at", hint="--host 127.0.0.1") from error
    except OSError as error:
        raise ActiveDPOError(
            f"the page can't be served at {options.host}:{options.port}: {error.strerror or error}",
            hint="--port 0 takes a free one",
        ) from error


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a killed server's port waits a minute
        listening.bind(address)
        listening.listen(128)
    except BaseException:
        listening.close()
        raise
    return listening


def addresses(access: Access, door: Door, host: str, port: int) -> str:
    """Where the page is for everybody, and how to reach it from elsewhere."""
    shown_host = f"[{host.strip('[]')}]" if ":" in host else host
    base = door.public.geturl() if door.public else f"http://{shown_host}:{port}"
    width = max(len(display_text(person.name)) for person in access.people)
    lines = ["The page, for a browser; whoever has an address answers in that name, so give each to one person alone:"]
    lines += [f"  {display_text(person.name):<{width}}  {base}/#{person.token}" for person in access.people]
    if not door.public and is_loopback(host):
        lines.append(
            f"From another machine, first there: ssh -L {port}:{shown_host}:{port} {_user()}@{socket.gethostname()}"
        )
    lines.append("Ctrl-C ends it; everything that was saved is kept.")
    return "\n".join(lines)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "USER"
