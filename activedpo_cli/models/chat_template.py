"""Conversations as the text that a chat template makes of them; nothing but the conversation and the date decides it.

A template is a program that may ask for the time and draw at random. Here the clock stands at a date that is given, and
random choices are always the same.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from activedpo_cli.base.template_date import TEMPLATE_DATE, read_date
from activedpo_cli.models.random_state import seeded_python_state

Messages = Sequence[dict[str, str]]

TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a chat template may raise: it is a program in the library's sandbox, and either can fail in these ways."""


LONGEST_RENDERING = 2**25
"""Characters of a conversation as text; the longest contexts of models have a few millions."""

DIRECTIVES = tuple(f"%{flag}{letter}" for letter in "aAbBcCdDeFGHIjklmMnprRStTuUVwWxXyYzZ" for flag in ("", "-"))
"""The parts of a date that a template may ask for, each with and without leading zeros."""

MARK = "Xanswerx"
"""Stands for an answer, to be found again in what a template makes of it."""

STANDING_CLOCK = (
    "{% macro strftime_now(form) %}{% set told = namespace(text=form) %}"
    "{% for part, value in parts_of_the_date.items() if part in form %}"
    "{% set told.text = told.text.replace(part, value) %}{% endfor %}"
    "{{ told.text }}{% endmacro %}\n"
)
"""Takes the place of the library's function of this name, which reads the clock; the line's end is not rendered."""


NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Messages,
    *,
    opened: bool,
    date: str = TEMPLATE_DATE,
    arguments: Mapping[str, Any] = NO_ARGUMENTS,
) -> str:
    """The conversation as text, `opened` for an answer or not; the template is given further `arguments` by name.

    Raises what the template raises, see `TEMPLATE_ERRORS`.
    """
    template: str = tokenizer.get_chat_template()
    given: dict[str, Any] = dict(arguments)
    if reads_clock(template):
        template, given = STANDING_CLOCK + template, {**given, "parts_of_the_date": _parts(date)}
    with seeded_python_state(0):
        text = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=opened, chat_template=template, **given
        )
    if len(text) > LONGEST_RENDERING:  # tokenizers abort over hundreds of megabytes, with nothing said
        raise ValueError(f"it makes {len(text):,} characters of it, more than {LONGEST_RENDERING:,}")
    return str(text)


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Messages,
    *,
    date: str = TEMPLATE_DATE,
    arguments: Mapping[str, Any] = NO_ARGUMENTS,
) -> str:
    """The conversation as text up to the place where the answer goes on.

    An answer that the last message begins goes on behind it. Where the template opens no answer by itself, what it writes
    before one is put behind the conversation. Raises what the template raises, and ValueError where it leaves out an
    answer that was begun.
    """
    if is_started(messages):
        found = around_answer(tokenizer, messages, date=date, arguments=arguments)
        if found is None:
            render_chat(tokenizer, messages, opened=False, date=date, arguments=arguments)  # says why, where it refuses
            raise ValueError("an answer that the last message begins does not come out of the template")
        return found[0]
    text = render_chat(tokenizer, messages, opened=True, date=date, arguments=arguments)
    return text + missing_header(tokenizer, messages, date=date, arguments=arguments)


def is_started(messages: Messages) -> bool:
    """Whether the last message is the beginning of the answer that is wanted."""
    return messages[-1]["role"] == "assistant"


def missing_header(
    tokenizer: PreTrainedTokenizerBase,
    messages: Messages,
    *,
    date: str = TEMPLATE_DATE,
    arguments: Mapping[str, Any] = NO_ARGUMENTS,
) -> str:
    """What a template that opens no answer writes between the conversation and one; empty where it opens them.

    A space at its end is left to the answer, whose first word is one token with it. Raises what the template raises.
    """
    opened, closed = (
        render_chat(tokenizer, messages, opened=opened, date=date, arguments=arguments) for opened in (True, False)
    )
    if opened != closed:
        return ""
    found = around_answer(tokenizer, messages, date=date, arguments=arguments)
    header = found[0].removeprefix(closed) if found and found[0].startswith(closed) else ""
    return header.rstrip(" ") if header.strip() else ""


def around_answer(
    tokenizer: PreTrainedTokenizerBase,
    messages: Messages,
    *,
    date: str = TEMPLATE_DATE,
    arguments: Mapping[str, Any] = NO_ARGUMENTS,
) -> tuple[str, str] | None:
    """What the template writes before and behind an answer; what was begun of it is before. None where it shows none."""
    answer = _mark_not_in(messages)
    if is_started(messages):
        whole = [*messages[:-1], {"role": "assistant", "content": messages[-1]["content"] + answer}]
    else:
        whole = [*messages, {"role": "assistant", "content": answer}]
    try:
        shown = render_chat(tokenizer, whole, opened=False, date=date, arguments=arguments)
    except TEMPLATE_ERRORS:
        return None
    before, mark, behind = shown.rpartition(answer)
    return (before, behind) if mark else None


def _mark_not_in(messages: Messages) -> str:
    mark = MARK
    while any(mark in message["content"] for message in messages):
        mark += MARK
    return mark


def reads_clock(template: str) -> bool:
    """Whether a chat template asks for the time."""
    return "strftime_now" in template


@lru_cache(maxsize=8)
def _parts(date: str) -> dict[str, str]:
    """What each directive of `strftime` stands for at the beginning of a day."""
    now = read_date(date)
    return {directive: now.strftime(directive) for directive in DIRECTIVES}
