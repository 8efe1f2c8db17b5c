"""Ask a person about pairs, line by line: works over any connection, in pipes, and with a screen reader.

Nothing here decides anything: which pair comes next, and what an answer amounts to, is for `label/queue.py`. An answer is
stored before the screen says so. Scores and sources are never shown, and sides are shuffled.
"""

import io
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from activedpo_cli.base import interruption
from activedpo_cli.base.errors import BusyError, Terminated
from activedpo_cli.base.records import prompt_as_text
from activedpo_cli.label.queue import Answer, PairAnsweredError, Queue, Ticket
from activedpo_cli.label.wording import (
    CHOICES,
    KEYS,
    QUESTION,
    help_lines,
    progress_in_words,
    shown_text,
    with_others_in_words,
)

HELP = help_lines({key.typed or key.key: key.meaning for key in KEYS})
KEY_NAMES = ", ".join(key.key for key in KEYS)
KEY_LINES = textwrap.fill(
    ", ".join(f"{key.key} {key.short}".replace(" ", "\N{NO-BREAK SPACE}") for key in KEYS), 78
).replace("\N{NO-BREAK SPACE}", " ")


def _read_standard_input() -> str | None:
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _take_any_bytes() -> None:
    """Let a note that is typed or piped in another encoding be one with marks for what could not be read, and no error."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        with suppress(io.UnsupportedOperation):  # something was read already
            sys.stdin.reconfigure(errors="replace")


def _write_standard_output(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """Keyboard and screen: `read_line` returns None at the end of input, `write` shows text as it is."""

    read_line: Callable[[], str | None] = _read_standard_input
    write: Callable[[str], None] = _write_standard_output

    def say(self, text: str) -> None:
        """Show a line."""
        self.write(text + "\n")


def label_session(
    queue: Queue, *, annotator: str, terminal: Terminal | None = None, guidelines: str | None = None
) -> bool:
    """Ask about pair after pair until none is left for this person or they quit; says whether they quit.

    End of input and Ctrl-C count as quitting; SIGTERM (Terminated) does not, and passes through.

    Args:
        queue: The pairs, which others may be working on too.
        annotator: Who answers.
        terminal: Where to ask; standard input and output by default.
        guidelines: Text to show on request.

    """
    if terminal is None:
        _take_any_bytes()
    session = _Session(queue, annotator, terminal or Terminal(), guidelines)
    try:
        has_quit = not session.ask_all()
    except Terminated:
        raise
    except KeyboardInterrupt:
        interruption.forget()
        has_quit = True
    queue.leave(annotator)
    return has_quit


@dataclass(frozen=True)
class _Session:
    queue: Queue
    annotator: str
    terminal: Terminal
    guidelines: str | None

    def ask_all(self) -> bool:
        """Whether no pair is left to ask about; False when the person quit."""
        self.terminal.say(f"{QUESTION} Type a key and Enter; ? explains.\n{KEY_LINES}")
        while (ticket := self.queue.next(self.annotator)) is not None:
            if not self._ask(ticket):
                return False
        if with_others := with_others_in_words(self.queue.progress(self.annotator)):
            self.terminal.say(with_others)
        return True

    def _ask(self, ticket: Ticket) -> bool:
        """Show the pair and take keys until one of them leaves it; False when that is to quit."""
        self._show(ticket)
        note = None
        while True:
            self.terminal.write("> ")
            line = self.terminal.read_line()
            typed = "q" if line is None else line.strip()
            key = typed.lower()
            if key == "q":
                return False
            if key in CHOICES:
                if self._answer(ticket, Answer(choice=CHOICES[key], note=note)):
                    return True
            elif key == "u":
                if self._undo():
                    return True
            elif key.startswith("n "):
                note = typed[2:].strip()
                self.terminal.say("The note goes with your answer to this pair.")
            else:
                self._explain(key)

    def _answer(self, ticket: Ticket, answer: Answer) -> bool:
        """Store an answer; False where it could not be stored, and the pair has to be answered again."""
        try:
            self.queue.answer(ticket, answer)
        except PairAnsweredError as error:
            self.terminal.say(f"not needed: {error.message}")
        except BusyError as error:
            self.terminal.say(f"NOT saved, answer again: {error.message}")
            return False
        else:
            self.terminal.say(f"saved   {progress_in_words(self.queue.progress(self.annotator))}")
        return True

    def _undo(self) -> bool:
        """Take the last answer back; False where there is none, or where that could not be stored."""
        try:
            label = self.queue.undo(self.annotator)
        except BusyError as error:
            self.terminal.say(f"NOT undone, try again: {error.message}")
            return False
        if label is None:
            self._explain("u")
            return False
        self.terminal.say(f"undone   {progress_in_words(self.queue.progress(self.annotator))}")
        return True

    def _show(self, ticket: Ticket) -> None:
        progress = self.queue.progress(self.annotator)
        self.terminal.say(f"\nPair {progress.given + 1} of {progress.most}")
        self.terminal.say(f"Prompt\n{_indented(prompt_as_text(ticket.comparison.prompt))}")
        for number, response in enumerate(ticket.sides, start=1):
            self.terminal.say(f"Response {number}\n{_indented(response.text)}")

    def _explain(self, key: str) -> None:
        other = {
            "?": HELP,
            "g": _indented(self.guidelines) if self.guidelines else "There are no guidelines.",
            "u": "There is nothing of yours to undo: no answer was given in this sitting.",
            "n": "Write the note behind the n, such as: n the second one is made up",
        }
        self.terminal.say(other.get(key, f"Not one of {KEY_NAMES}."))


def _indented(text: str) -> str:
    """Foreign text, safe to show and set in, so that it cannot pass for a line of the session."""
    return "\n".join(f"    {line}" for line in shown_text(text).split("\n"))
