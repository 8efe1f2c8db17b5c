"""What whoever asks people says alike, wherever they sit: the keys and what they mean, and how far the pairs are."""

from collections.abc import Mapping
from dataclasses import dataclass

from activedpo_cli.base.display import display_text
from activedpo_cli.base.numbers import shown
from activedpo_cli.base.records import Outcome
from activedpo_cli.label.queue import Choice, QueueProgress

QUESTION = "Which response is better?"


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key and what it does.

    Attributes:
        key: The character.
        short: In a word or two, for a line of all keys.
        meaning: In a sentence, for the help.
        choice: The answer that it gives, None where it gives none.
        typed: What is typed where a line is read, if that is more than the key.

    """

    key: str
    short: str
    meaning: str
    choice: Choice | None = None
    typed: str | None = None


KEYS = (
    Key(key="1", short="first", meaning="the first response is better", choice="first"),
    Key(key="2", short="second", meaning="the second response is better", choice="second"),
    Key(key="t", short="tie", meaning="tie: both are equally good", choice="tie"),
    Key(key="b", short="both bad", meaning="both are bad: neither is of any use", choice="both_bad"),
    Key(key="s", short="skip", meaning="skip this pair, if you can't judge it; it costs nothing", choice="skip"),
    Key(key="n", short="note", meaning="add a note to the answer that follows", typed="n TEXT"),
    Key(key="u", short="undo", meaning="undo your last answer of this sitting"),
    Key(key="g", short="guidelines", meaning="show the guidelines"),
    Key(key="q", short="quit", meaning="quit; everything answered is kept"),
    Key(key="?", short="help", meaning="this help"),
)
"""The keys that mean the same wherever people are asked."""

CHOICES: dict[str, Choice] = {key.key: key.choice for key in KEYS if key.choice}

COUNTED: dict[Outcome, tuple[str, str]] = {
    "tie": ("tie", "ties"),
    "both_bad": ("both bad", "both bad"),
    "skip": ("skipped", "skipped"),
}


def shown_text(text: str) -> str:
    """Foreign text as people read it: what could steer a terminal is written out, and lines may end as Windows ends them."""
    return display_text(text.replace("\r\n", "\n"))


def help_lines(keys: Mapping[str, str]) -> str:
    """A line a key, what is typed and what it means."""
    return "\n".join(f"  {typed:<8} {meaning}" for typed, meaning in keys.items())


def progress_in_words(progress: QueueProgress) -> str:
    """`12/50, 38 s per label, 2 ties`."""
    parts = [f"{progress.given}/{progress.most}"]
    if (seconds := progress.seconds_per_answer) is not None:
        parts.append(f"{shown(seconds, 0 if seconds >= 10 else 1)} s per label")
    for outcome, (one, many) in COUNTED.items():
        count = progress.outcomes.get(outcome, 0)
        if count:
            parts.append(f"{count} {one if count == 1 else many}")
    return ", ".join(parts)


def with_others_in_words(progress: QueueProgress) -> str | None:
    """What to say to somebody for whom no pair is left while others are not answered; None where all are."""
    if not progress.waiting:
        return None
    left = "1 answer is" if progress.waiting == 1 else f"{progress.waiting} answers are"
    return f"{left} left to other people: nothing more is for you at the moment."
