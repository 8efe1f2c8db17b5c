"""Arguments for chat templates as a list of `name=value`, which a setting can hold: `enable_thinking=false`."""

import math
from collections.abc import Sequence
from typing import Any

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.yaml_text import read_yaml

TAKEN = frozenset(
    {"messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize"}
    | {"continue_final_message", "padding", "truncation", "max_length", "return_tensors", "return_dict"}
    | {"return_assistant_tokens_mask", "tokenizer_kwargs", "processor_kwargs", "self", "parts_of_the_date"}
    | {"strftime_now"}
)
"""Names by which a template, or the function that renders it, is given something else already."""


def as_arguments(assignments: Sequence[str]) -> dict[str, Any]:
    """The arguments by name, their values read as YAML scalars; raises ValueError where one has none or is no scalar."""
    found: dict[str, Any] = {}
    for text in assignments:
        name, equals, written = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"`{text}` is not of the form name=value, such as enable_thinking=false")
        if name in TAKEN or name in found:
            raise ValueError(f"`{name}` can't be given" if name in TAKEN else f"`{name}` is given twice")
        found[name] = _scalar(text, written)
    return found


def checked_assignments(assignments: list[str]) -> list[str]:
    """The assignments themselves, ordered by name; raises ValueError as `as_arguments` does."""
    as_arguments(assignments)
    return sorted(assignments)


def _scalar(text: str, written: str) -> Any:
    try:
        value = read_yaml(written)
    except UsageError:
        return written
    if not isinstance(value, str | bool | int | float | None):
        raise ValueError(f"`{text}` gives no single value")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"`{text}` gives no finite number")
    return value
