"""The labelling page for tests: served in this process over answers in a file, or looked at in Debian's Chromium."""

import contextlib
import http.client
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from compared_pairs import make_comparison

from activedpo_cli.base.records import Label
from activedpo_cli.label.questions import Question
from activedpo_cli.label.queue import LEASE_SECONDS, Queue
from activedpo_cli.label.web.access import Access
from activedpo_cli.label.web.desk import Desk
from activedpo_cli.label.web.security import Door, door_for
from activedpo_cli.label.web.server import ServerTerminal, Serving
from activedpo_cli.store.label_log import LabelLog

CHROMIUM = "/usr/bin/chromium" if Path("/usr/bin/chromium").exists() else shutil.which("chromium") or ""
ARGUMENTS = [
    *("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-gpu"),
    *("--disable-dev-shm-usage", "--no-first-run"),
]
PATIENCE = 60.0
"""Seconds after which something that was waited for will not come; the machine may be busy."""
WATCH = """
window.seen = []; window.waits = []; window.keyAt = null;
addEventListener("keydown", () => { window.keyAt = performance.now(); }, true);
new MutationObserver(() => {
  const number = document.body && document.body.dataset.shown;
  if (!number || number === window.shownNow) return;
  window.shownNow = number;
  window.seen.push(document.getElementById("prompt").textContent);
  const at = window.keyAt;
  window.keyAt = null;
  if (at !== null) requestAnimationFrame(() => window.waits.push(performance.now() - at));
}).observe(document, {subtree: true, attributes: true, childList: true});
"""
"""Notes in the page which prompts it shows, and how long after a key the next pair is drawn."""


class Answers:
    """Answers in a file, for one queue."""

    def __init__(self, path: Path) -> None:
        self.log = LabelLog(path)
        self._lock = threading.Lock()
        self.before: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        with self._lock:
            yield

    def answers(self) -> Sequence[Label]:
        return self.log.answers()

    def given_as(self, answer_id: str) -> Label | None:
        return next((one.label for one in self.log.history() if one.label and one.label.answer_id == answer_id), None)

    def record(self, label: Label) -> None:
        self.before()
        self.log.append(label)

    def retract(self, asked: Any) -> None:
        self.log.retract_answer(asked)

    def held_elsewhere(self) -> list[Any]:
        return []

    def hold(self, asked: Any) -> None:
        pass


def questions_about(texts: Sequence[tuple[str, str, str]], people: int = 1) -> list[Question]:
    """Questions with these prompts and responses."""
    return [
        Question(comparison=make_comparison(number, first, second, prompt=prompt), people=people)
        for number, (prompt, first, second) in enumerate(texts, start=1)
    ]


def plain_questions(number: int, people: int = 1) -> list[Question]:
    """Questions that are told apart by their texts."""
    return questions_about([(f"prompt {n}", f"one of {n}", f"other of {n}") for n in range(1, number + 1)], people)


@dataclass
class Served:
    """A page that is served, and what it has stored."""

    port: int
    access: Access
    answers: Answers
    serving: Serving
    desk: Desk
    sent: list[Any] = field(default_factory=list)

    def address(self, name: str = "ann") -> str:
        return f"http://127.0.0.1:{self.port}/#{self.token(name)}"

    def token(self, name: str = "ann") -> str:
        return next(person.token for person in self.access.people if person.name == name)

    @property
    def labels(self) -> list[Label]:
        return self.answers.log.answers()

    @property
    def events(self) -> list[Any]:
        return list(self.answers.log.history())

    def ask(self, what: str, facts: Any, *, body: bytes | None = None, **headers: str | None) -> tuple[int, Any]:
        """A request as the page makes it, but for these headers; None leaves one out."""
        own = {
            "Host": f"127.0.0.1:{self.port}",
            "Origin": f"http://127.0.0.1:{self.port}",
            "Sec-Fetch-Site": "same-origin",
            "Content-Type": "application/json",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        status, _, data = self.request(
            "POST", f"/api/{what}", json.dumps(facts).encode() if body is None else body, own
        )
        try:
            return status, json.loads(data)
        except ValueError:
            return status, data.decode()

    def request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str | None]
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if value is not None:
                    connection.putheader(name, value)
            if body is not None and "Content-Length" not in headers and "Transfer-Encoding" not in headers:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def cookie(self, name: str = "ann") -> str:
        person = next(person for person in self.access.people if person.name == name)
        return f"{person.cookie_name}={person.cookie}"

    def person(self, name: str = "ann") -> str:
        return next(person.person_id for person in self.access.people if person.name == name)


@contextlib.contextmanager
def served(
    folder: Path,
    questions: Sequence[Question],
    *names: str,
    guidelines: str | None = None,
    door: Door | None = None,
    secret: bytes = b"\1" * 32,
    **of_queue: Any,
) -> Iterator[Served]:
    """Serve a page in a thread until the block ends."""
    tokens = {name: f"token-of-{name if name.isalnum() else number}-{'x' * 32}" for number, name in enumerate(names)}
    access = Access(secret, tokens or {"ann": f"token-of-ann-{'x' * 32}"})
    answers = Answers(folder / "labels.jsonl")
    options: dict[str, Any] = {"oracle": "human", "seed": 0, "clock": time.monotonic, "channel": "web"}
    queue = Queue(questions, answers, **{**options, "lease_seconds": LEASE_SECONDS, **of_queue})
    desk = Desk(queue, questions, access, seed=0, guidelines=guidelines)
    listening = socket.create_server(("127.0.0.1", 0))
    serving = Serving(desk, access, door or door_for("127.0.0.1", None), ServerTerminal(desk))
    thread = threading.Thread(target=serving.run, args=(listening,), daemon=True)
    thread.start()
    try:
        yield Served(listening.getsockname()[1], access, answers, serving, desk)
    finally:
        serving.stop()
        thread.join(PATIENCE)
        listening.close()


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Debian's Chromium; skips the test where it, or what drives it, is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not there")
    if not CHROMIUM:
        pytest.skip("there is no Chromium; on Debian: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page in the browser, with all that it complained about and asked for."""

    def __init__(self, browser: Any, address: str, *, width: int = 1280, height: int = 800, **of_context: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, **of_context)
        self.context.add_init_script(WATCH)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = self.open(address)

    def open(self, address: str) -> Any:
        """Open a further tab."""
        page = self.context.new_page()
        page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(address)
        return page

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def wait(self, expression: str, page: Any = None) -> None:
        """Wait until an expression of the page is true; the page's own policy forbids the browser to look by itself."""
        self._until(lambda: (page or self.page).evaluate(expression), expression)

    def _until(self, holds: Callable[[], Any], what: str) -> None:
        deadline, pause = time.monotonic() + PATIENCE, 0.01
        while not holds():
            assert time.monotonic() < deadline, (what, self.page.inner_text("body"), self.complaints)
            time.sleep(pause)
            pause = min(1.4 * pause, 0.2)

    def wait_for_pair(self, number: int, page: Any = None) -> None:
        """Wait until so many pairs have been shown."""
        self.wait(f"(document.body.dataset.shown || 0) >= {number}", page)

    def pair_number(self, number: int) -> dict[str, str]:
        """What is on the screen once so many pairs have been shown."""
        parts = (
            "Object.fromEntries(['prompt', 'first', 'second'].map(p => [p, document.getElementById(p).textContent]))"
        )
        found: dict[str, str] = {}

        def look() -> bool:
            found.update(self.page.evaluate(f"document.body.dataset.shown >= {number} ? {parts} : {{}}"))
            return bool(found)

        self._until(look, f"pair {number}")
        return found

    def wait_for_text(self, text: str, page: Any = None) -> None:
        self.wait(f"document.body.innerText.includes({json.dumps(text)})", page)

    def answer(self, key: str) -> None:
        """Press a key and wait until another pair is there."""
        number = int(self.page.evaluate("document.body.dataset.shown"))
        self.press(key)
        self.wait_for_pair(number + 1)

    def text(self, part: str) -> str:
        return str(self.page.evaluate(f"document.getElementById('{part}').textContent"))

    def close(self) -> None:
        self.context.close()
