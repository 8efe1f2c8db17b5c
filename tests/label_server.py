"""`activedpo label --web` as a process: started, asked, stopped and killed by tests."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from label_page import PATIENCE

ADDRESS = re.compile(r"^  (\S+) +(http://\S+?:(\d+)/)#(\S+)$", re.MULTILINE)


@dataclass
class LabelServer:
    """One command on one run, which may be started several times."""

    run: Path
    people: str = "ann,bo"
    words: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def said(self) -> str:
        return (self.run.parent / "said").read_text()

    def start(self) -> None:
        """Start it and wait until it says where it is."""
        words = ["label", "--run", self.run, "--web", "--annotators", self.people, "--port", self.port, *self.words]
        (self.run.parent / "said").write_text("")
        with (self.run.parent / "said").open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "activedpo_cli", *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        deadline = time.monotonic() + PATIENCE
        while "Ctrl-C ends it" not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)
        found = ADDRESS.findall(self.said)
        self.addresses = {name: f"{base}#{token}" for name, base, _, token in found}
        self.port = int(found[0][2])

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal and return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)

    def ask(self, what: str, facts: dict[str, Any], cookie: str = "") -> tuple[int, Any, str]:
        """A request as the page makes it; also returns the cookie that comes back."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        headers = {
            "Origin": f"http://127.0.0.1:{self.port}",
            "Sec-Fetch-Site": "same-origin",
            "Content-Type": "application/json",
            "Cookie": cookie,
        }
        connection.request("POST", f"/api/{what}", json.dumps(facts).encode(), headers)
        response = connection.getresponse()
        found = json.loads(response.read())
        connection.close()
        return response.status, found, (response.getheader("Set-Cookie") or "").partition(";")[0]


@dataclass
class Client:
    """A person who labels by requests."""

    server: LabelServer
    name: str
    cookie: str = ""
    person: str = ""

    def __post_init__(self) -> None:
        token = self.server.addresses[self.name].partition("#")[2]
        status, found, self.cookie = self.server.ask("enter", {"token": token})
        assert status == 200, found
        self.person = found["person"]

    def ask(self, what: str, **facts: Any) -> tuple[int, Any]:
        return self.server.ask(what, {"person": self.person, **facts}, self.cookie)[:2]

    def label(self, most: int = 1000, choice: str = "first") -> int:
        """Answer until nothing is left, or so many; returns how many that were."""
        for number in range(most):
            pair = self.ask("next")[1]["pair"]
            if pair is None:
                return number
            name = f"answer-{self.name}-{pair['id']}"[:60]
            said = {"pair": pair["id"], "answer_id": name, "choice": choice, "seconds": 1, "view": "text"}
            status, found = self.ask("answer", **said)
            assert (status, found["saved"]) == (200, True)
        return most
