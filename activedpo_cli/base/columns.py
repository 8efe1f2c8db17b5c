"""What stands beside a prompt or inside a cell and would change what the model reads: found, so that nothing is ignored."""

import ast
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.records import PromptText

SYSTEM = ("system", "system_prompt")
ARGUMENTS = "chat_template_kwargs"
"""The column in which TRL reads the arguments of a row's template, and in which *label* writes those of the run."""
CONDITIONS = ("tools", "images", "image", "documents", "history", "context", "input", ARGUMENTS)
"""Columns that the answer depends on where they hold something, and that no prompt is made of here."""
KNOWN = (
    *("prompt", "chosen", "rejected", "responses", "response", "completion", "text", "response_a", "response_b"),
    *("preference", "messages", *SYSTEM, *CONDITIONS, "finish_reason", "instruction", "question"),
)
"""Columns that are read of rows with prompts and responses."""
LONGEST_TEXT = 2**23
"""Characters, some million tokens; more take minutes and gigabytes until they are found to exceed every context."""
LOOKS_STORED = re.compile(r"\s*(?:array\()?[\[{].*[\]})]\s*", re.DOTALL)
MESSAGE_IN_TEXT = re.compile(
    r"""\s*(?:array\()?\[?\s*\{\s*(['"])(?:(?:role|from)\1\s*:.*['"](?:content|value)|(?:content|value)\1\s*:.*['"](?:role|from))['"]\s*:""",
    re.DOTALL,
)


def require_text(text: str, origin: str) -> None:
    """Raise InvalidDataError for more text than any model reads, and for what spells messages out."""
    require_length(text, origin)
    refuse_stored_structure(text, origin)


def require_length(text: str, origin: str) -> None:
    """Raise InvalidDataError for more text than any model reads."""
    if len(text) > LONGEST_TEXT:
        raise InvalidDataError(
            f"{origin}: the text has {len(text):,} characters, and more than {LONGEST_TEXT:,} are read of none",
            hint="leave the row out; tokenizers would fill the memory over it",
        )


def refuse_stored_structure(text: str, origin: str) -> None:
    """Raise InvalidDataError where a text spells messages as JSON or as Python prints them, as tables of text hold them.

    The model would read the spelling, braces and all.
    """
    if not LOOKS_STORED.fullmatch(text):
        return
    value = _value(text)
    items = value if isinstance(value, list) else [value]
    are_messages = bool(items) and all(map(is_message, items))
    if are_messages or (value is None and MESSAGE_IN_TEXT.match(text)):
        raise InvalidDataError(
            f"{origin}: messages are spelled out as text, which the model would read as it stands",
            details=[f"it begins {text[:60]!r}"],
            hint="give the data set as JSONL or parquet, whose cells can hold lists, or give plain texts",
        )


def _value(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            with warnings.catch_warnings():  # Python warns of odd spellings of numbers in what is a text
                warnings.simplefilter("ignore")
                return read(text)
        except (
            ValueError,
            SyntaxError,
            TypeError,
            RecursionError,
            MemoryError,
        ):  # TypeError: `{[1]}`, no set of Python's
            continue
    return None


def with_conditions(prompt: PromptText, values: Mapping[str, Any], origin: str, *used: str) -> PromptText:
    """The prompt with the row's system message in front; `used` are the columns that are read otherwise.

    Raises InvalidDataError, naming the row and the column, where another column holds something that the answer depends on,
    or a system message that is no text or that the prompt contradicts.
    """
    for name in CONDITIONS:
        if name not in used and not is_blank(values.get(name)):
            raise InvalidDataError(
                f"{origin}: the answer depends on `{name}`, which would be ignored",
                hint=f"put it into the prompt, or remove or rename the column `{name}` where it means something else",
            )
    for name in SYSTEM:
        if name not in used and not is_blank(values.get(name)):
            prompt = _with_system(prompt, values[name], f"{origin}, {name}")
    return prompt


def _with_system(prompt: PromptText, system: Any, origin: str) -> PromptText:
    if not isinstance(system, str):
        raise InvalidDataError(f"{origin}: a system message is text")
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if messages[0]["role"] != "system":
        return [{"role": "system", "content": system}, *messages]
    if messages[0]["content"].strip() != system.strip():
        raise InvalidDataError(
            f"{origin}: the prompt begins with another system message", hint="leave one of the two out"
        )
    return prompt


def is_message(value: Any) -> bool:
    """Whether a value is a message, as chat templates have it or as ShareGPT does."""
    return isinstance(value, dict) and ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys())


def is_blank(value: Any) -> bool:
    """Whether a value holds nothing that a model could read."""
    return value is None or (
        isinstance(value, str | list | dict) and not (value.strip() if isinstance(value, str) else value)
    )
