"""The server is killed again and again while two people label: what was called saved is there, and nothing comes twice."""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import rows
from label_page import PATIENCE, Watched, chromium
from label_server import LabelServer

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


class Person:
    """Somebody at a page, who presses keys whenever a pair is there."""

    def __init__(self, browser: Any, address: str) -> None:
        self.watched = Watched(browser, address)
        self.acknowledged: set[str] = set()
        self.watched.page.on("response", self._heard)

    def _heard(self, response: Any) -> None:
        if response.url.endswith("/api/answer") and response.status == 200:
            self.acknowledged.add(json.loads(response.request.post_data)["answer_id"])

    @property
    def seen(self) -> list[str]:
        return self.watched.page.evaluate("window.seen")

    @property
    def is_done(self) -> bool:
        return "Everything is answered" in self.watched.page.inner_text("body")

    @property
    def unsent(self) -> int:
        return int(self.watched.page.evaluate("document.body.dataset.unsent || 0"))

    def press(self, key: str) -> None:
        self.watched.press(key)


def kill_again_and_again(browser: Any, server: LabelServer, kills: int, seed: int, most: int = 8) -> dict[str, Any]:
    """Label to the end, killing the server so often at random, after up to `most` keys; returns what came of it."""
    chance = random.Random(seed)
    server.start()
    people = [Person(browser, server.addresses[name]) for name in ("ann", "bo")]
    for person in people:
        person.watched.wait_for_pair(1)
    events = server.run / "iter-001" / "label" / "labels.jsonl"
    for number in range(kills):
        for _ in range(chance.randint(1, most)):
            chance.choice(people).press(chance.choice("12t"))
            people[0].watched.page.wait_for_timeout(chance.uniform(0, 30))
        assert server.process is not None
        server.process.kill()
        server.process.wait(PATIENCE)
        if number % 2:
            chance.choice(people).press(chance.choice("12t"))  # while nobody is there
        known = {event["label"]["answer_id"].partition(".")[2] for event in _labels(events)}
        for person in people:
            person.watched.page.wait_for_timeout(1)
            assert person.acknowledged <= known, "what was called saved is in the log"
        server.start()
    deadline = time.monotonic() + 4 * PATIENCE
    while not all(person.is_done and person.unsent == 0 for person in people):
        assert time.monotonic() < deadline, [person.watched.page.inner_text("body") for person in people]
        for person in people:
            person.press("t")
            person.watched.page.wait_for_timeout(15)
    assert server.end() == 0, server.said
    found = _labels(events)
    asked = Counter((event["label"]["pair_id"], event["label"]["annotator"]) for event in found)
    assert max(asked.values()) == 1, "nobody's answer is there twice"
    assert len({pair for pair, _ in asked}) == len(rows(server.run / "iter-001" / "select" / "selection.jsonl"))
    names = {event["label"]["answer_id"].partition(".")[2] for event in found}
    for person in people:
        assert person.acknowledged <= names
        assert len(person.seen) == len({*person.seen}), "nobody is shown a pair twice"
        person.watched.close()
    return {"kills": kills, "answers": len(found), "by two": len(found) - len({pair for pair, _ in asked})}


def _labels(path: Path) -> list[dict[str, Any]]:
    """The whole lines of the log."""
    data = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].split(b"\n") if line]


def test_some_kills(browser: Any, waiting: Path) -> None:
    server = LabelServer(waiting)
    try:
        kill_again_and_again(browser, server, kills=10, seed=1, most=4)
    finally:
        server.close()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_sixty_kills(browser: Any, long_waiting: Path) -> None:
    server = LabelServer(long_waiting)
    try:
        print(kill_again_and_again(browser, server, 60, seed=int(os.environ.get("ACTIVEDPO_SOAK_SEED", "0"))))
    finally:
        server.close()
