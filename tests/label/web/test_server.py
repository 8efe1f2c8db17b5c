"""The command: where it says the page is, how it ends, and what it refuses."""

import io
import json
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import activedpo, done, manifest, on, refused, rows
from hostile_text import HOSTILE, steering
from label_page import PATIENCE, plain_questions, served
from label_server import Client, LabelServer

from activedpo_cli.base.records import Label
from activedpo_cli.label.web import access as access_module
from activedpo_cli.label.web import server as server_module
from activedpo_cli.label.web.access import Access, open_access
from activedpo_cli.label.web.security import door_for
from activedpo_cli.label.web.server import ServerTerminal, addresses
from activedpo_cli.store.label_log import LabelLog
from activedpo_cli.store.run import Run


@pytest.fixture
def server(waiting: Path) -> Iterator[LabelServer]:
    found = LabelServer(waiting)
    yield found
    found.close()


@pytest.mark.whole
def test_two_people_label_all_and_the_stage_closes(server: LabelServer) -> None:
    server.words = ("--overlap", "5")
    server.start()
    ann, bo = (Client(server, name) for name in ("ann", "bo"))
    assert ann.label(20) + bo.label() + ann.label() == 55
    assert ann.ask("next")[1] == {"pair": None, "answered": 55, "pairs": 55, "others": 0, "is_done": True}
    assert server.end() == 0, server.said
    found = rows(server.run / "iter-001" / "label" / "labels.jsonl")
    assert len(found) == len({(one["label"]["pair_id"], one["label"]["annotator"]) for one in found}) == 55
    assert {one["label"]["channel"] for one in found} == {"web"}
    assert len(rows(server.run / "iter-001" / "label" / "preferences.jsonl")) == 50
    assert manifest(server.run, 1, "label")["summary"]["measuring"] == {"overlap": 5}
    assert "55 of 55 answered (ann" in server.said
    assert "up to date" in done(*on(server.run, "label"), "--web").stderr


@pytest.mark.whole
def test_it_ends_by_a_signal_and_goes_on_at_the_same_place(server: LabelServer) -> None:
    server.start()
    Client(server, "ann").label(3)
    before, port, server.port = server.addresses, server.port, 0
    assert server.end(signal.SIGTERM) == 130, server.said
    assert len(rows(server.run / "iter-001" / "label" / "labels.jsonl")) == 3
    server.start()
    assert (server.port, server.addresses) == (port, before), "so that open pages find it"
    assert server.end(signal.SIGINT) == 5, f"a signal that comes as soon as the addresses are there: {server.said}"
    assert "is taken" not in server.said
    server.port = 0
    with socket.create_server(("127.0.0.1", port)):
        server.start()
    assert f"port {port}, where the page was last time, is taken, so it is at {server.port} now" in server.said
    assert Client(server, "bo").ask("next")[1]["answered"] == 3
    assert server.end(signal.SIGINT) == 5, server.said
    assert "Traceback" not in server.said
    assert "47 of 50 pairs still wait" in server.said
    for address in before.values():
        assert server.said.count(address.partition("#")[2]) == 1, "tokens stand in the addresses and nowhere else"


def test_tokens_are_for_this_user_alone(waiting: Path) -> None:
    access = open_access(Run.open(waiting), ["ann", "bo"])
    path = waiting / ".private" / "labelling-page.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    tokens = [person.token for person in access.people]
    assert len({*tokens}) == 2
    assert min(map(len, tokens)) >= 43, "32 bytes"
    again = open_access(Run.open(waiting), ["cy", "ann"])
    assert [person.token == tokens[0] for person in again.people] == [False, True]
    assert again.people[1] == access.people[0]
    assert open_access(Run.open(waiting), ["bo"]).people[0] == access.people[1], "who is not named now is not forgotten"
    path.write_text("{")
    assert "rm " in refused(4, *on(waiting, "label"), "--web", "--oracle", "human")
    assert done(*on(waiting, "verify")).exit_code == 0


def test_two_servers_that_begin_at_once_keep_each_others_tokens(waiting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, keep, found = Run.open(waiting), access_module._keep, {}

    def open_for(name: str) -> None:
        found[name] = open_access(run, [name]).people[0]

    other = threading.Thread(target=open_for, args=("bo",))

    def keep_later(*what: Any) -> None:
        if not other.ident:
            other.start()
            other.join(0.3)
        keep(*what)

    monkeypatch.setattr(access_module, "_keep", keep_later)
    open_for("ann")
    other.join(PATIENCE)
    assert open_access(run, ["ann", "bo"]).people == [found["ann"], found["bo"]]


def test_another_command_closes_the_stage(server: LabelServer, tmp_path: Path) -> None:
    server.start()
    ann = Client(server, "ann")
    ann.label(2)
    path = tmp_path / "answers.jsonl"
    assert activedpo(*on(server.run, "label"), "--export", path).exit_code == 5
    assert activedpo(*on(server.run, "label"), "--accept-partial").exit_code == 75, "people sit there"
    answers = [{**row, "preference": "tie"} for row in rows(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in answers))
    done(*on(server.run, "label"), "--import", path)
    assert ann.ask("next")[0] == 410
    assert server.process is not None
    assert server.process.wait(PATIENCE) == 0, server.said
    assert "closed or taken away by another command" in server.said


def test_it_ends_by_itself_when_all_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "ENDING_SECONDS", 0.3)
    with served(tmp_path, plain_questions(1)) as page:
        said = {"person": page.person(), "answer_id": "x" * 20, "choice": "tie", "seconds": 1, "view": "text"}
        said["pair"] = page.ask("next", said, Cookie=page.cookie())[1]["pair"]["id"]
        for _ in range(2):
            assert page.ask("answer", said, Cookie=page.cookie())[1]["answered"] == 1
            assert page.ask("undo", said, Cookie=page.cookie())[1]["undone"]
            said["answer_id"] += "y"
            time.sleep(0.6)
            assert page.ask("next", said, Cookie=page.cookie())[0] == 200, "it was taken back in time"
        page.ask("answer", said, Cookie=page.cookie())
        deadline = time.monotonic() + PATIENCE
        while socket.socket().connect_ex(("127.0.0.1", page.port)) == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_it_ends_by_itself_when_others_answer_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all pages closed, as when somebody in a terminal was the last, nobody asks the server anything."""
    monkeypatch.setattr(server_module, "ENDING_SECONDS", 0.2)
    monkeypatch.setattr(server_module, "LOOK_SECONDS", 0.1)
    with served(tmp_path, plain_questions(2)) as page:
        assert page.ask("next", {"person": page.person()}, Cookie=page.cookie())[1]["pair"]
        time.sleep(0.5)
        assert socket.socket().connect_ex(("127.0.0.1", page.port)) == 0
        pairs = [question.comparison.pair_id for question in plain_questions(2)]
        LabelLog(page.answers.log.path).append(
            *(Label(pair_id=pair, outcome="tie", preferred_id=None, oracle="human", annotator="bo") for pair in pairs)
        )
        deadline = time.monotonic() + PATIENCE
        while socket.socket().connect_ex(("127.0.0.1", page.port)) == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_fault_of_the_disk_is_told_on_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path, plain_questions(2)) as page:
        said = {"person": page.person(), "answer_id": "x" * 20, "choice": "tie", "seconds": 1, "view": "text"}
        said["pair"] = page.ask("next", said, Cookie=page.cookie())[1]["pair"]["id"]

        def fail() -> None:
            raise OSError(28, "No space left on device")

        page.answers.before = fail
        for _ in range(3):
            status, found = page.ask("answer", said, Cookie=page.cookie())
            assert (status, found["error"]) == (503, "the disk of the server did not take it")
        page.answers.before = lambda: None
        assert page.ask("answer", said, Cookie=page.cookie())[1]["saved"]
        said |= {"answer_id": "y" * 20, "choice": "first"}
        status, found = page.ask("answer", said, Cookie=page.cookie())
        assert status == 409
        assert "p00000" not in json.dumps(found), "ids of pairs stay here"
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_a_fault_of_the_program_is_told_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path, plain_questions(2)) as page:
        said = {"person": page.person(), "answer_id": "x" * 20, "choice": "tie", "seconds": 1, "view": "text"}
        said["pair"] = page.ask("next", said, Cookie=page.cookie())[1]["pair"]["id"]

        def fail() -> None:
            raise KeyError("p000001\x1b[2J")

        page.answers.before = fail
        status, found = page.ask("answer", said, Cookie=page.cookie())
        assert (status, "p00000" in found["error"]) == (500, False)
        page.answers.before = lambda: None
        assert page.ask("answer", said, Cookie=page.cookie())[1]["saved"], "as the page tries again"
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "in fail" in told
    assert "a fault of activedpo itself" in told
    assert "not saved" not in told
    assert not steering(told)


def test_a_page_that_goes_away_while_it_speaks_is_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path, plain_questions(2)) as page:
        with socket.create_connection(("127.0.0.1", page.port)) as speaking:
            host = f"127.0.0.1:{page.port}"
            head = (
                f"POST /api/next HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n"
            )
            speaking.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{{".encode())
            time.sleep(0.2)  # until it is read
        time.sleep(0.2)
        assert page.ask("enter", {"token": page.token()})[0] == 200
    told = capsys.readouterr().err
    assert "not saved" not in told
    assert "Traceback" not in told


def test_a_terminal_that_is_gone_makes_no_answer_unsaved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with served(tmp_path, plain_questions(2)) as page:
        monkeypatch.setattr(sys, "stderr", Gone())
        said = {"person": page.person(), "answer_id": "x" * 20, "choice": "tie", "seconds": 1, "view": "text"}
        said["pair"] = page.ask("next", said, Cookie=page.cookie())[1]["pair"]["id"]
        assert page.ask("answer", said, Cookie=page.cookie())[1]["saved"]


def test_a_port_that_is_taken(waiting: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "--port 0" in refused(1, *on(waiting, "label"), "--web", "--port", port, "--oracle", "human")


@pytest.mark.parametrize("name", ["starlette", "uvicorn"])
def test_the_extra_is_named_where_it_is_missing(waiting: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert "activedpo-cli[web]" in refused(1, *on(waiting, "label"), "--web", "--oracle", "human")
    assert not (waiting / "iter-001" / "label").exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--web", "--host", "0.0.0.0"), "ssh -L"),
        (("--web", "--public-url", "http://labels.example"), "--public-url https://"),
        (("--web", "--public-url", "labels"), "https://x.org/y"),
        (("--web", "--annotators", "ann,ann"), "ann,bo"),
        (("--web", "--annotators", "ann,,bo"), "ann,bo"),
        (("--annotators", "ann,bo"), "--web"),
        (("--port", 8000), "--web"),
        (("--web", "--plain"), "leave one out"),
        (("--web", "--annotators", "ann,bo", "--annotator", "cy"), "--annotator out"),
        (("--web", "--export", "x.csv"), "leave one out"),
        (("--web", "--oracle", "python:letter_rule:score"), "--oracle human"),
        (("--web", "--host", "no-such-host.invalid", "--public-url", "https://x.org"), "127.0.0.1"),
    ],
)
def test_options_that_can_not_be_meant(waiting: Path, words: tuple[object, ...], hint: str) -> None:
    assert hint in refused(2, *on(waiting, "label"), "--oracle", "human", *words)
    assert not (waiting / "iter-001" / "label" / "labels.jsonl").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_the_line_for_ssh_leads_to_where_the_page_is(tmp_path: Path, host: str) -> None:
    """`localhost` may be either of two addresses, as the machine's own list of hosts says, which is asked there again."""
    told = addresses(Access(b"1" * 32, {"ann": "x"}), door_for(host, None), host, 8000)
    shown = "[::1]" if ":" in host else host
    assert f"http://{shown}:8000/#x" in told
    assert f"ssh -L 8000:{shown}:8000 " in told


def test_names_steer_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = HOSTILE["clears"] + HOSTILE["right to left"]
    with served(tmp_path, plain_questions(1), name) as page:
        page.ask("enter", {"token": page.token(name)})
        door = door_for("127.0.0.1", "https://labels.example/team/")
        terminal = ServerTerminal(page.desk)
        terminal.say(addresses(page.access, door, "127.0.0.1", 8000))
        page.desk.answers_by[name] += 1
        terminal.progress(1, 1)
    said = capsys.readouterr().err
    assert f"https://labels.example/team/#{page.token(name)}" in said
    assert "ssh" not in said
    assert "1 of 1 answered (\\x1b[2J\\x1b[Hgone\\u202eevil" in said
    assert not steering(said)
