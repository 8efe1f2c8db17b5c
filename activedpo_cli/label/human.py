"""Ask a person about pairs, line by line: works over any connection, in pipes, and with a screen reader.

An answer is stored before the screen says so. Scores and sources are never shown, and sides are shuffled.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from activedpo_cli.base import interruption
from activedpo_cli.base.display import display_text
from activedpo_cli.base.errors import Terminated
from activedpo_cli.base.records import Label, Outcome, Response, prompt_as_text
from activedpo_cli.label.sides import shown_sides
from activedpo_cli.oracles.base import Comparison

ORACLE = "human"
HELP = """\
  1        the first response is better
  2        the second response is better
  t        tie: both are equally good
  b        both are bad
  s        skip this pair; it costs nothing
  n TEXT   add a note to the answer that follows
  u        undo the last answer
  g        show the guidelines
  q        quit; everything answered is kept
  ?        this help"""
KEYS = "1, 2, t, b, s, n, u, g, q, ?"
OUTCOMES: dict[str, Outcome] = {"t": "tie", "b": "both_bad", "s": "skip"}


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What a session talks to.

    `read_line` returns one line, or None at the end of input; `write` shows text as it is, newline included. `record`
    stores a label, and `retract` the fact that a pair's label no longer counts; both return only when that is safe on
    disk. `clock` counts seconds.
    """

    read_line: Callable[[], str | None]
    write: Callable[[str], None]
    record: Callable[[Label], None]
    retract: Callable[[str], None]
    clock: Callable[[], float]


@dataclass(frozen=True)
class SessionResult:
    """How many of the pairs have an answer now, skipped ones included, how many have none, and whether they quit."""

    labelled: int
    remaining: int
    quit: bool


def label_session(
    comparisons: Sequence[Comparison],
    labels: Mapping[str, Label],
    *,
    annotator: str,
    seed: int,
    desk: Desk,
    guidelines: str | None = None,
) -> SessionResult:
    """Ask about every pair without a label, in order, until all are answered or the person quits.

    End of input and Ctrl-C count as quitting; SIGTERM (Terminated) does not, and passes through.

    Args:
        comparisons: All pairs of the stage.
        labels: The labels that count so far, by pair, oldest first.
        annotator: Who answers; part of the sides' shuffle and of each label.
        seed: The run's seed.
        desk: Screen, keyboard and store.
        guidelines: Text to show on request.

    """
    session = _Session(comparisons, annotator, seed, desk, guidelines)
    known = {comparison.pair_id for comparison in comparisons}
    session.labels = {pair_id: label for pair_id, label in labels.items() if pair_id in known}
    try:
        has_quit = not session.ask_all()
    except Terminated:
        raise
    except KeyboardInterrupt:
        interruption.forget()
        has_quit = True
    remaining = len(comparisons) - len(session.labels)
    return SessionResult(len(session.labels), remaining, has_quit)


@dataclass
class _Session:
    comparisons: Sequence[Comparison]
    annotator: str
    seed: int
    desk: Desk
    guidelines: str | None
    labels: dict[str, Label] = field(default_factory=dict)

    def ask_all(self) -> bool:
        """Whether every pair has an answer; False when the person quit."""
        self._say(f"Which response is better? Type {KEYS} and Enter; ? explains.")
        reopened: str | None = None
        while (comparison := self._next(reopened)) is not None:
            key = self._ask(comparison)
            if key == "q":
                return False
            reopened = self._undo() if key == "u" else None
        return True

    def _next(self, reopened: str | None) -> Comparison | None:
        waiting = (pair for pair in self.comparisons if pair.pair_id not in self.labels)
        if reopened is None:
            return next(waiting, None)
        return next(pair for pair in self.comparisons if pair.pair_id == reopened)

    def _ask(self, comparison: Comparison) -> str:
        """Show the pair and take keys until one of them leaves it."""
        sides = shown_sides(comparison, self.annotator, self.seed)
        self._show(comparison, sides)
        started, note = self.desk.clock(), None
        while True:
            self.desk.write("> ")
            line = self.desk.read_line()
            typed = "q" if line is None else line.strip()
            key = typed.lower()
            if key == "q" or (key == "u" and self.labels):
                return key
            if key in ("1", "2", *OUTCOMES):
                self._answer(comparison, sides, key, self.desk.clock() - started, note)
                return key
            if key.startswith("n "):
                note = typed[2:].strip()
                self._say("The note goes with your answer to this pair.")
            else:
                self._explain(key)

    def _answer(
        self, comparison: Comparison, sides: tuple[Response, Response], key: str, seconds: float, note: str | None
    ) -> None:
        label = Label(
            pair_id=comparison.pair_id,
            outcome=OUTCOMES.get(key, "chosen"),
            preferred_id=None if key in OUTCOMES else sides[int(key) - 1].response_id,
            oracle=ORACLE,
            annotator=self.annotator,
            seconds=round(max(seconds, 0.0), 3),
            note=note,
        )
        self.desk.record(label)
        self.labels[comparison.pair_id] = label
        self._say(f"saved   {self._progress()}")

    def _undo(self) -> str:
        """Take the newest label back and return its pair."""
        pair_id = next(reversed(self.labels))
        self.desk.retract(pair_id)
        del self.labels[pair_id]
        self._say(f"undone   {self._progress()}")
        return pair_id

    def _progress(self) -> str:
        """`12/50, 38 s per label, 2 ties`; the time is the median, so that a break does not count."""
        parts = [f"{len(self.labels)}/{len(self.comparisons)}"]
        times = [label.seconds for label in self.labels.values() if label.seconds is not None]
        if times:
            parts.append(f"{statistics.median(times):.0f} s per label")
        for outcome, one, many in (
            ("tie", "tie", "ties"),
            ("both_bad", "both bad", "both bad"),
            ("skip", "skipped", "skipped"),
        ):
            count = sum(label.outcome == outcome for label in self.labels.values())
            if count:
                parts.append(f"{count} {one if count == 1 else many}")
        return ", ".join(parts)

    def _show(self, comparison: Comparison, sides: tuple[Response, Response]) -> None:
        self._say(f"\nPair {len(self.labels) + 1} of {len(self.comparisons)}")
        self._say(f"Prompt\n{_indented(prompt_as_text(comparison.prompt))}")
        for number, response in enumerate(sides, start=1):
            self._say(f"Response {number}\n{_indented(response.text)}")

    def _explain(self, key: str) -> None:
        if key == "?":
            self._say(HELP)
        elif key == "g":
            self._say(_indented(self.guidelines) if self.guidelines else "There are no guidelines.")
        elif key == "u":
            self._say("There is nothing to undo.")
        elif key == "n":
            self._say("Write the note behind the n, such as: n the second one is made up")
        else:
            self._say(f"Not one of {KEYS}.")

    def _say(self, text: str) -> None:
        self.desk.write(text + "\n")


def _indented(text: str) -> str:
    """Foreign text, safe to show and set in, so that it cannot pass for a line of the session."""
    return "\n".join(f"    {line}" for line in display_text(text).split("\n"))
