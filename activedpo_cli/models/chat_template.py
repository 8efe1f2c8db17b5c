"""Conversations as the text that a chat template makes of them; nothing but the conversation and the date decides it.

A template is a program that may ask for the time and draw at random. Here the clock stands at a date that is given, and
random choices are always the same.
"""

from collections.abc import Sequence
from functools import lru_cache
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
    RecursionError,
    TypeError,
    ValueError,
)
"""What a chat template may raise: it is a program in the library's sandbox, and either can fail in these ways."""


LONGEST_RENDERING = 2**25
"""Characters of a conversation as text; the longest contexts of models have a few millions."""

DIRECTIVES = tuple(f"%{flag}{letter}" for letter in "aAbBcCdDeFGHIjklmMnprRStTuUVwWxXyYzZ" for flag in ("", "-"))
"""The parts of a date that a template may ask for, each with and without leading zeros."""

STANDING_CLOCK = (
    "{% macro strftime_now(form) %}{% set told = namespace(text=form) %}"
    "{% for part, value in parts_of_the_date.items() if part in form %}"
    "{% set told.text = told.text.replace(part, value) %}{% endfor %}"
    "{{ told.text }}{% endmacro %}\n"
)
"""Takes the place of the library's function of this name, which reads the clock; the line's end is not rendered."""


def render_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, *, opened: bool, date: str = TEMPLATE_DATE
) -> str:
    """The conversation as text, `opened` for an answer or not. Raises what the template raises, see `TEMPLATE_ERRORS`."""
    template: str = tokenizer.get_chat_template()
    arguments: dict[str, Any] = {}
    if reads_clock(template):
        template, arguments = STANDING_CLOCK + template, {"parts_of_the_date": _parts(date)}
    with seeded_python_state(0):
        text = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=opened, chat_template=template, **arguments
        )
    if len(text) > LONGEST_RENDERING:  # tokenizers abort over hundreds of megabytes, with nothing said
        raise ValueError(f"it makes {len(text):,} characters of it, more than {LONGEST_RENDERING:,}")
    return str(text)


def reads_clock(template: str) -> bool:
    """Whether a chat template asks for the time."""
    return "strftime_now" in template


@lru_cache(maxsize=8)
def _parts(date: str) -> dict[str, str]:
    """What each directive of `strftime` stands for at the beginning of a day."""
    now = read_date(date)
    return {directive: now.strftime(directive) for directive in DIRECTIVES}
