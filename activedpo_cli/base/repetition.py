"""Responses that begin with the text of their prompt, as some data sets have them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from activedpo_cli.base.columns import is_blank
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.tables import Row, named_lines

CERTAIN_LENGTH = 16
"""Characters of a prompt that no answer begins with by chance."""
CERTAIN_NUMBER = 20
"""Different short prompts that answers do not all begin with by chance."""


@dataclass(frozen=True)
class Repetition:
    """Rows that repeat their prompt, by line, of how many; `is_cut` says whether it is taken off their responses."""

    is_cut: bool
    lines: tuple[int, ...]
    rows: int

    def without_prompt(self, text: str, prompt: Any) -> str:
        """A response without its prompt at the start, spaces at whose end may lack there; as it is where nothing is cut."""
        if not self.is_cut or not isinstance(prompt, str) or not _begins(text, prompt):
            return text
        return text[len(prompt) if text.startswith(prompt) else len(prompt.rstrip()) :]

    def in_words(self) -> str | None:
        """What a person has to know of it."""
        if not self.lines:
            return None
        if self.is_cut:
            return f"the prompt was taken off the start of what answers it in {counted(len(self.lines), 'row')}"
        where = f"{len(self.lines)} of {self.rows} rows ({named_lines(self.lines)})"
        return f"what answers the prompt begins with its text in {where}, and stays as it is"


def repetition_in(rows: Iterable[tuple[Row, Any, list[Any]]], columns: str) -> Repetition:
    """Whether a file's responses are whole texts, prompt included: only where all are, since one may well begin so.

    `rows` holds each row with its prompt and its responses, which messages call `columns`. Any answer to `Hi` may begin with
    it, so a file is certain by the length of most of its prompts, or by the number of different ones. Raises
    InvalidDataError where most rows repeat their prompt, of a length that leaves no doubt, and others do not.
    """
    considered = [
        (row, prompt, texts) for row, prompt, texts in rows if texts and not any(map(is_blank, (prompt, *texts)))
    ]
    repeating = [(row.line, prompt.strip()) for row, prompt, texts in considered if _repeats(prompt, texts)]
    others = [row for row, prompt, texts in considered if not _repeats(prompt, texts)]
    long = [prompt for _, prompt in repeating if len(prompt) >= CERTAIN_LENGTH]
    are_long = bool(repeating) and 2 * len(long) >= len(repeating)
    if others and 2 * len(others) < len(considered) and are_long:
        raise InvalidDataError(
            f"{others[0].origin} does not repeat its prompt in {columns}, as most rows of the file do",
            details=[f"{len(repeating)} of {len(considered)} rows begin so with the text of `prompt`"],
            hint="take the prompt off the start of all responses, or leave the other rows out",
        )
    is_certain = are_long or len({prompt for _, prompt in repeating}) >= CERTAIN_NUMBER
    return Repetition(not others and is_certain, tuple(line for line, _ in repeating), len(considered))


def _repeats(prompt: Any, texts: list[Any]) -> bool:
    return isinstance(prompt, str) and all(isinstance(text, str) and _begins(text, prompt) for text in texts)


def _begins(text: str, prompt: str) -> bool:
    return text.startswith(prompt.rstrip())
