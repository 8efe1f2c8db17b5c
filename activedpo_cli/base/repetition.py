"""Responses that begin with the text of their prompt, as some data sets have them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from activedpo_cli.base.columns import is_blank, is_message
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.tables import Row, named_lines

CERTAIN_LENGTH = 16
"""Characters of a prompt that no answer begins with by chance."""
CERTAIN_WORDS, CERTAIN_ANSWERS = 3, 4
"""Words of a prompt, more than a greeting has, that so many different answers do not all begin with by chance."""
CERTAIN_NUMBER = 20
"""Different short prompts that answers do not all begin with by chance."""
WORD, SPACES = re.compile(r"[^\W\d_]+"), re.compile(r"\s*")


@dataclass(frozen=True)
class Repetition:
    """Rows that repeat their prompt, by line, of how many; `is_cut` says whether it is taken off their responses."""

    is_cut: bool
    lines: tuple[int, ...]
    rows: int

    def without_prompt(self, text: str, prompt: Any) -> str:
        """A response without its prompt at the start, spaces around which may lack there; as it is where nothing is cut."""
        end = _end_of_prompt(text, _as_text(prompt)) if self.is_cut else None
        return text if end is None else text[end:]

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

    `rows` holds each row with its prompt and its responses, as text or as messages, of which the last counts; what is said
    calls the responses `columns`. Any answer to `Hi` may begin with it, so a file is certain by the length of most of its
    prompts, by their words and the number of different answers, or by the number of different prompts.

    Raises InvalidDataError where most rows leave no doubt that they repeat their prompt, and others do not.
    """
    considered = [
        (row, prompt, texts) for row, prompt, texts in rows if texts and not any(map(is_blank, (prompt, *texts)))
    ]
    repeating = [(row.line, prompt, texts) for row, prompt, texts in considered if _repeats(prompt, texts)]
    others = [row for row, prompt, texts in considered if not _repeats(prompt, texts)]
    is_certain = _are_certain([(_as_text(prompt) or "", texts) for _, prompt, texts in repeating])
    if others and 2 * len(others) < len(considered) and is_certain:
        raise InvalidDataError(
            f"{others[0].origin} does not repeat its prompt in {columns}, as most rows of the file do",
            details=[f"{len(repeating)} of {len(considered)} rows begin so with the text of `prompt`"],
            hint="take the prompt off the start of all responses, or leave the other rows out",
        )
    return Repetition(not others and is_certain, tuple(line for line, _, _ in repeating), len(considered))


def _are_certain(repeating: Sequence[tuple[str, list[Any]]]) -> bool:
    """Whether rows that all repeat their prompt, given with their responses, can't do so by chance."""
    prompts = [prompt.strip() for prompt, _ in repeating]
    long = [prompt for prompt in prompts if len(prompt) >= CERTAIN_LENGTH]
    if long and 2 * len(long) >= len(prompts):
        return True
    worded = [p for p in prompts if len(p) >= CERTAIN_LENGTH or len(WORD.findall(p)) >= CERTAIN_WORDS]
    answers = {_as_text(text) for _, texts in repeating for text in texts}
    are_worded = 2 * len(worded) >= len(prompts) and len(answers) >= CERTAIN_ANSWERS
    return are_worded or len(set(prompts)) >= CERTAIN_NUMBER


def _repeats(prompt: Any, texts: list[Any]) -> bool:
    asked = _as_text(prompt)
    return all(_end_of_prompt(_as_text(text), asked) is not None for text in texts)


def _as_text(value: Any) -> str | None:
    """A text, or that of the last of some messages, which alone is answered, or answers; None of anything else."""
    if isinstance(value, list) and value:
        value = value[-1]
    if is_message(value):
        value = value["content"] if "content" in value else value["value"]
        if isinstance(value, list):
            texts = [part.get("text") if isinstance(part, dict) else None for part in value]
            known = [text for text in texts if isinstance(text, str)]
            value = "".join(known) if len(known) == len(texts) else None
    return value if isinstance(value, str) else None


def _end_of_prompt(text: str | None, prompt: str | None) -> int | None:
    """Where the prompt ends at the start of a text; None where it does not stand there, whatever its white space is."""
    if text is None or prompt is None:
        return None
    if text.startswith(prompt):
        return len(prompt)
    end = 0
    for number, word in enumerate(prompt.split()):
        start = SPACES.match(text, end).end()  # type: ignore[union-attr]
        if not text.startswith(word, start) or (number and start == end):
            return None
        end = start + len(word)
    return end
