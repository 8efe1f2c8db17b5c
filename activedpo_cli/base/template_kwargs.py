"""Arguments for chat templates as a list of `name=value`, which a setting can hold: `enable_thinking=false`."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from activedpo_cli.base.columns import ARGUMENTS
from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError, UsageError
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


def without_own_arguments(values: Mapping[str, Any], origin: str, assignments: Sequence[str] | None) -> dict[str, Any]:
    """A row of a file without `ARGUMENTS`, where the run renders its prompts with the same arguments.

    `assignments` are those of the run, None where there is no run to ask. Raises InvalidDataError, naming both, where the
    row asks for others.
    """
    given = values.get(ARGUMENTS)
    kept = {name: value for name, value in values.items() if name != ARGUMENTS}
    if isinstance(given, str):  # the cell of a table of text
        with suppress(ValueError, RecursionError):
            given = json.loads(given) if given.strip() else None
    if not given or assignments is None:
        return kept
    own = as_arguments(assignments)
    if _spelled(given) == _spelled(own):
        return kept
    raise InvalidDataError(
        f"{origin}: `{ARGUMENTS}` is {excerpt(given)}, and prompts.template_kwargs of the run says {excerpt(own)}",
        details=["the template would write another prompt than the one that was answered"],
        hint=_setting(given),
    )


def _spelled(arguments: Any) -> str:
    """Equal for equal arguments only; true is not 1."""
    return json.dumps(arguments, sort_keys=True, default=str) if isinstance(arguments, Mapping) else excerpt(arguments)


def _setting(given: Any) -> str:
    """How a run is made that renders prompts with such arguments, where it can be."""
    other = f"remove the column `{ARGUMENTS}` where the answers are meant for prompts without it"
    if not isinstance(given, Mapping):
        return other
    written = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items()]
    joined = ", ".join(written)
    with suppress(ValueError):
        if _spelled(as_arguments(written)) == _spelled(given):
            return f"make the run with `--set {shlex.quote(f'prompts.template_kwargs=[{joined}]')}`"
    return other


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
