"""What every exporter has in common: preferences in, files and what to know about them out.

An exporter is one module in this folder, or an entry point of the group `activedpo.exporters`. Its file name is the value of
`export --format`, the first line of its docstring the help, and it has, at module level,

- `export(preferences, folder) -> Exported`: the files that hold the preferences, which have the columns of
  `label/preferences.jsonl`; nothing is written. `folder` is where they will lie, for texts alone.

What the trainer would drop without a word, or read as something else, is left out and counted, or said in a warning.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from activedpo_cli.base.columns import ARGUMENTS
from activedpo_cli.base.errors import InvalidDataError

PREFERENCES = "preferences.jsonl"
Preference = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Preferences for one trainer.

    Attributes:
        files: The content of each file, by its name.
        rows: The rows of the data set among them.
        left_out: How many preferences are not among them, by the reason in words.
        warnings: What the person should know, in sentences without an end.
        usage: Lines that make the trainer read the files.

    """

    files: Mapping[str, bytes]
    rows: Sequence[Mapping[str, Any]]
    left_out: Mapping[str, int] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    usage: Sequence[str] = ()


def are_chats(preferences: Sequence[Preference]) -> bool:
    """Whether the prompts are messages; raises InvalidDataError where some are and some are texts."""
    kinds = {isinstance(preference["prompt"], list) for preference in preferences}
    if len(kinds) > 1:
        raise InvalidDataError(
            "some preferences have messages and some have texts, which no trainer reads in one file",
            details=["an earlier version wrote texts where the model reads messages"],
            hint="`activedpo label --iteration N --rebuild` writes those of iteration N again; or export one at a time",
        )
    return kinds == {True}


def text_of(answer: Any) -> str:
    """The text of `chosen` or `rejected`, be it a text or one message."""
    return answer if isinstance(answer, str) else answer[0]["content"]


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """One object a line, in ASCII."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def warnings_about_templates(preferences: Sequence[Preference], trainer: str) -> list[str]:
    """A warning where the template was given more than messages, which this trainer would not give it."""
    given = next((preference[ARGUMENTS] for preference in preferences if preference.get(ARGUMENTS)), None)
    if given is None:
        return []
    shown = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return [f"the run gave its chat template {shown}; {trainer} reads no such column, and renders without it"]
