"""A person labels at a terminal, in real processes: on the full screen, and line by line where that is not possible."""

import csv
import os
import re
import shutil
import signal
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import PENDING, STAGES, done, manifest, on, refused, rows
from hostile_text import HOSTILE, steering
from pseudo_terminal import Terminal
from zygote import Zygote

from activedpo_cli.label import fronts
from activedpo_cli.label.tui.session import ENDING, TAKEN_BY_THE_LIBRARY, _signals_heard
from activedpo_cli.store.lock import waiting
from activedpo_cli.store.run import Run

TERM = {"TERM": "xterm-256color"}
OWN_SEQUENCES = re.compile(r"\x1b\[[<>=?]?[0-9;]*(?:\$p|[A-Za-z])|\x1b\]22;[a-z]*\x07")
"""What the library itself sends: colours, moves, modes, questions, the mouse's shape; no title, no link, no reset.

The texts of these tests hold none of these whole, but for a line that clears the screen, which is looked for by name.
"""


@pytest.fixture
def asked(finished: Path) -> Path:
    """A run whose second iteration waits for people: 4 pairs."""
    for stage in STAGES[3:]:
        shutil.rmtree(finished / "iter-002" / stage)
    return finished


def events(run: Path) -> list[dict]:
    return rows(run / "iter-002" / "label" / "labels.jsonl")


def words(run: Path, *more: object) -> tuple[object, ...]:
    return (*on(run, "label", iteration=2), "--oracle", "human", "--annotator", "ann", *more)


def shown(terminal: Terminal) -> str:
    return " ".join(" ".join(terminal.screen).split())


def pressing(*steps: tuple[str, str | Callable[[], None]]) -> Callable[[Terminal], None]:
    """Do one thing after another, each as soon as the words before it are on the screen."""
    left = list(steps)

    def watch(terminal: Terminal) -> None:
        if left and left[0][0] in shown(terminal):
            _, action = left.pop(0)
            if callable(action):
                action()
            else:
                terminal.type(action)

    return watch


def modes_at_end(raw: bytes) -> dict[str, str]:
    """Of each mode that was switched on or off the last state."""
    return {mode.decode(): state.decode() for mode, state in re.findall(rb"\x1b\[\?(\d+)([hl])", raw)}


def run_and_compare(
    terminal: Terminal, zygote: Zygote, words: tuple[object, ...], folder: Path, watch: Callable[[Terminal], None]
) -> int:
    """Run a command that takes the full screen, and check that it leaves the terminal as it was."""
    before = termios.tcgetattr(terminal._master)
    after = []

    def look(terminal: Terminal) -> None:
        if not after and b"\x1b[?1049l" in terminal.raw:
            after.extend(termios.tcgetattr(terminal._master))
        watch(terminal)

    status = terminal.run(zygote, words, folder, watch=look, environment=TERM)
    assert after == before
    modes = modes_at_end(terminal.raw)
    assert (modes["1049"], modes["25"], modes["2004"], modes["7"]) == ("l", "h", "l", "h")
    assert terminal.raw.rfind(b"\x1b[<u") > terminal.raw.rfind(b"\x1b[>")
    return status


@pytest.mark.parametrize(("columns", "rows"), [(60, 16), pytest.param(120, 30, marks=pytest.mark.slow)])
def test_a_stage_is_answered_on_the_full_screen(asked: Path, zygote: Zygote, columns: int, rows: int) -> None:
    attack = "\n".join(text for text in HOSTILE.values() if text.isprintable() or "\x1b" in text)
    (asked / "guidelines.txt").write_text(attack)
    terminal = Terminal(columns, rows)
    watch = pressing(
        ("pair 1 of 4", "g"),
        ("Guidelines", "q"),
        ("pair 1 of 4", "1"),
        ("saved 1/4", "n"),
        ("A note that goes", "so so\r"),
        ("with a note", "t"),
        ("saved 2/4", "u"),
        ("undone 1/4", "b"),
        ("saved 2/4", "s"),
        ("saved 3/4", "2"),
        ("All pairs are answered", "\r"),
    )
    status = run_and_compare(terminal, zygote, words(asked, "--guidelines", "guidelines.txt"), asked, watch=watch)
    assert status == 0
    assert [event["event"] for event in events(asked)] == ["label", "label", "retract", "label", "label", "label"]
    labels = [event["label"] for event in events(asked) if event["event"] == "label"]
    assert [label["outcome"] for label in labels] == ["chosen", "tie", "both_bad", "skip", "chosen"]
    assert [label["note"] for label in labels] == [None, "so so", "so so", None, None]
    assert {(label["channel"], label["annotator"]) for label in labels} == {("tui", "ann")}
    assert manifest(asked, 2, "label")["summary"]["chosen"] == 2
    assert "saved 4/4" in shown(terminal)
    written = OWN_SEQUENCES.sub("", terminal.raw.decode())
    assert not steering(written) - {"\r", "\x08"}
    assert b"\x1b[2J\x1b[Hgone" not in terminal.raw
    assert rb"\x1b[2J\x1b[Hgone" in terminal.raw


@pytest.mark.parametrize("how", ["\x03", signal.SIGINT])
def test_quitting_keeps_what_was_answered(asked: Path, zygote: Zygote, how: str | int) -> None:
    terminal = Terminal(100, 30)
    stop = how if isinstance(how, str) else lambda: os.kill(zygote.last_pid, how)
    watch = pressing(("pair 1 of 4", "1"), ("saved 1/4", stop))
    assert run_and_compare(terminal, zygote, words(asked), asked, watch=watch) == 5
    assert len(events(asked)) == 1
    assert "3 of 4 pairs still wait for an answer" in shown(terminal)


def test_a_signal_ends_the_sitting_with_the_terminal_restored(asked: Path, zygote: Zygote) -> None:
    terminal = Terminal(100, 30)
    watch = pressing(("pair 1 of 4", "1"), ("saved 1/4", lambda: os.kill(zygote.last_pid, signal.SIGTERM)))
    assert run_and_compare(terminal, zygote, words(asked), asked, watch=watch) == 130
    assert len(events(asked)) == 1
    assert "interrupted: what was finished is kept" in shown(terminal)


@pytest.mark.slow
def test_a_second_signal_gives_the_terminal_back_too(asked: Path, zygote: Zygote) -> None:
    """Another process keeps the lock for which the answer waits, so that the first signal is not heard in time."""
    terminal = Terminal(100, 30)
    lock = Run(asked).lock_path("iter-002-label")
    assert lock.exists()

    def end_twice() -> None:
        with waiting(lock):
            terminal.type("1")
            time.sleep(0.3)
            for _ in range(2):
                os.kill(zygote.last_pid, signal.SIGTERM)
                time.sleep(0.5)

    watch = pressing(("pair 1 of 4", end_twice))
    assert run_and_compare(terminal, zygote, words(asked), asked, watch=watch) == 130
    assert not (asked / "iter-002" / "label" / "labels.jsonl").exists()
    assert "stopped at once; what was finished is kept" in shown(terminal)


@pytest.fixture
def heard_interrupts() -> Iterator[None]:
    """A shell has what it starts in the background ignore SIGINT, which a sitting then leaves so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_handlers_of_the_library_do_not_outlive_the_sitting(heard_interrupts: None) -> None:
    numbers = (*ENDING, *TAKEN_BY_THE_LIBRARY)
    before = [signal.getsignal(number) for number in numbers]

    class Ended:
        is_told = False

        def end_soon(self) -> bool:
            self.is_told = True
            return True

    app = Ended()
    with _signals_heard(app) as heard:
        signal.signal(signal.SIGTSTP, lambda *_: None)
        signal.raise_signal(signal.SIGINT)
        assert app.is_told
    assert [type(error) for error in heard] == [KeyboardInterrupt]
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_stage_that_is_closed_meanwhile_is_left_with_a_word(asked: Path, zygote: Zygote) -> None:
    path = asked / "answers.csv"
    stage = on(asked, "label", iteration=2)
    refused(PENDING, *stage, "--oracle", "human", "--annotator", "ann", "--export", path)
    with path.open(newline="", encoding="utf-8-sig") as stream:
        found = list(csv.DictReader(stream))

    def close() -> None:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(found[0]))
            writer.writeheader()
            writer.writerows(row | {"preference": "tie"} for row in found)
        done(*stage, "--import", path)

    terminal = Terminal(100, 30)
    watch = pressing(("pair 1 of 4", close), ("Prompt of pair", "1"))
    status = run_and_compare(terminal, zygote, words(asked), asked, watch=watch)
    assert status == 0, terminal.screen
    said = "".join(shown(terminal).split())  # where lines break goes by the length of the path before it
    assert "while you answered; all that was `saved` is kept".replace(" ", "") in said


@pytest.mark.parametrize(
    ("more", "environment", "size", "said"),
    [
        (["--plain"], TERM, (100, 30), None),
        ([], {"TERM": "dumb"}, (100, 30), None),
        ([], TERM, (59, 30), "needs 60 x 16 characters, and this terminal has 59 x 30"),
        ([], TERM, (100, 15), "needs 60 x 16 characters, and this terminal has 100 x 15"),
    ],
)
def test_line_by_line_where_the_full_screen_is_not_possible(
    asked: Path, zygote: Zygote, more: list[str], environment: dict[str, str], size: tuple[int, int], said: str | None
) -> None:
    terminal = Terminal(*size)
    watch = pressing(("Response 2", "t\n"), ("saved 1/4", "q\n"))
    assert terminal.run(zygote, words(asked, *more), asked, watch=watch, environment=environment) == 5
    assert [event["label"]["channel"] for event in events(asked)] == ["plain"]
    assert b"\x1b[?1049h" not in terminal.raw
    assert ("the full screen" in " ".join(" ".join(terminal.everything).split())) == bool(said)
    if said:
        assert said in " ".join(" ".join(terminal.everything).split())


class _Terminal:
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("version", "is_full"),
    [(None, False), ("7.9.0", False), ("8.1.5", False), ("8.2.0", True), ("8.10.1", True), ("9.0.0", False)],
)
def test_the_extra_is_named_where_it_is_lacking(
    monkeypatch: pytest.MonkeyPatch, version: str | None, is_full: bool
) -> None:
    def version_of(name: str) -> str:
        if version is None:
            raise fronts.PackageNotFoundError(name)
        return version

    for stream in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{stream}", _Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(fronts.os, "get_terminal_size", lambda descriptor: os.terminal_size((80, 24)))
    monkeypatch.setattr(fronts, "version", version_of)
    told: list[str] = []
    front = fronts.front_of_terminal(is_plain=False, tell=told.append)
    assert front.channel == ("tui" if is_full else "plain")
    assert len(told) == (not is_full)
    assert all("the extra `tui` (pip install 'activedpo-cli[tui]')" in line for line in told)


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_a_stream_that_is_no_terminal_means_line_by_line(monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", _Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(fronts.os, "get_terminal_size", lambda descriptor: os.terminal_size((80, 24)))
    assert fronts.front_of_terminal(is_plain=False, tell=print).channel == "tui"
    monkeypatch.setattr(f"sys.{stream}", None)
    assert fronts.front_of_terminal(is_plain=False, tell=print).channel == "plain"
