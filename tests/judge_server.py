"""A server that speaks OpenAI's protocol and says what a test wants, in a thread of this process."""

import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CASE = re.compile(r"\ACase (?P<case>\w+)\n")
RESPONSE = re.compile(r"<<<(?P<mark>\w+) response (?P<label>\w+)\n(?P<text>.*?)\n(?P=mark)>>>", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """What arrived: the case, and the labels and texts of both responses in their order."""

    body: dict[str, Any]
    headers: dict[str, str]
    message: str
    case: str
    labels: tuple[str, str]
    texts: tuple[str, str]


@dataclass(frozen=True)
class Raw:
    """An answer of any kind: `cut` sends half of it, `hang` nothing until the server ends."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    hang: bool = False

    def send(self, handler: BaseHTTPRequestHandler, ended: threading.Event) -> None:
        """Answer so, and end the connection."""
        handler.close_connection = True
        if self.hang:
            ended.wait(20)
            return
        data = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        handler.send_response(self.status)
        for name, value in {"Content-Type": "application/json", **self.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2] if self.cut else data)


def parsed(body: dict[str, Any], headers: dict[str, str]) -> Question:
    message = body["messages"][0]["content"]
    found = list(RESPONSE.finditer(message))
    case = CASE.match(message)
    assert case
    assert len(found) == 2
    labels, texts = [match["label"] for match in found], [match["text"] for match in found]
    return Question(body, headers, message, case["case"], (labels[0], labels[1]), (texts[0], texts[1]))


def reply(text: str, *, finish_reason: str | None = "stop", **more: Any) -> Raw:
    """A completion with this content."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020}
    message = {"role": "assistant", "content": text} | more.pop("message", {})
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return Raw(
        body={"id": "x", "object": "chat.completion", "model": "fake", "choices": [choice], "usage": usage} | more
    )


def verdict(question: Question, place: int | None) -> Raw:
    """A well-formed verdict for the response at a place, a tie for None."""
    return reply(verdict_text(question, place))


def verdict_text(question: Question, place: int | None) -> str:
    better = "tie" if place is None else question.labels[place]
    return json.dumps({"case": question.case, "reason": "because", "better": better})


class Listening(ThreadingHTTPServer):
    """Serves on a free port of this machine until it is shut down."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, *_: Any) -> None:
        """A client that gives up waiting is part of the tests; its traceback would stand in the output of the command."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*_)


def by_text(question: Question) -> int:
    """A taste that looks at the texts alone: which of them has the larger digest."""
    first, second = (hashlib.sha256(text.encode(errors="replace")).hexdigest() for text in question.texts)
    return 0 if first > second else 1


def honest(question: Question) -> Raw:
    """A judge whose both orders agree."""
    return verdict(question, by_text(question))


@dataclass
class JudgeServer:
    """Where it listens, what it was asked, and how it answers."""

    url: str
    answer: Callable[[Question], Raw]
    questions: list[Question] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def calls(self) -> int:
        return len(self.questions)


@contextmanager
def judge_server(answer: Callable[[Question], Raw] = honest) -> Iterator[JudgeServer]:
    """Serve until the block ends."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                question = parsed(body, dict(self.headers))
                served.questions.append(question)
                raw = served.answer(question)
            raw.send(self, served.ended)

        def log_message(self, *_: Any) -> None:
            pass

    server = Listening(Handler)
    served = JudgeServer(f"http://127.0.0.1:{server.server_address[1]}/v1", answer)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Slept:
    """Stands for the pauses of a judge's client: notes the seconds and waits for none."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, ending: threading.Event, seconds: float) -> None:
        self.seconds.append(seconds)
        time.sleep(0)
