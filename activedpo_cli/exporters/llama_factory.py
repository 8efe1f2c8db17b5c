"""LLaMA-Factory: conversations in ShareGPT's form, and the `dataset_info.json` that names them.

LLaMA-Factory drops, with a line in its log, rows in which users and assistants do not take turns or in which the prompt does
not end with a user's turn; they are left out here, and counted. An answer has to be one object, not a list.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from activedpo_cli.exporters.base import (
    PREFERENCES,
    Exported,
    Preference,
    are_chats,
    json_lines,
    text_of,
    warnings_about_templates,
)

NAME = "activedpo"
"""What the data set is called there."""
SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}
INFO = {
    NAME: {
        "file_name": PREFERENCES,
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    }
}


def export(preferences: Sequence[Preference], folder: Path) -> Exported:
    """Two files; a text that is no message is one turn of a user's, for the template `empty`."""
    is_chat = are_chats(preferences)
    left_out: Counter[str] = Counter()
    rows = []
    for preference in preferences:
        prompt = preference["prompt"]
        messages = prompt if is_chat else [{"role": "user", "content": prompt}]
        if _take_turns([message["role"] for message in messages]):
            rows.append(_row(messages, preference))
        else:
            left_out["users and assistants do not take turns"] += 1
    usage = [f"dataset_dir: {folder}", f"dataset: {NAME}", "stage: dpo"]
    return Exported(
        files={PREFERENCES: json_lines(rows), "dataset_info.json": json.dumps(INFO, indent=2).encode() + b"\n"},
        rows=rows,
        left_out=left_out,
        warnings=warnings_about_templates(preferences, "LLaMA-Factory"),
        usage=[*usage, "template: (that of the model's family)" if is_chat else "template: empty"],
    )


def _take_turns(roles: list[str]) -> bool:
    """Whether, behind a first system message, users and assistants alternate, and a user is the first and the last."""
    turns = roles[1:] if roles[:1] == ["system"] else roles
    return len(turns) % 2 == 1 and all(role == ("user", "assistant")[place % 2] for place, role in enumerate(turns))


def _row(messages: Sequence[dict[str, str]], preference: Preference) -> dict[str, Any]:
    return {
        "conversations": [{"from": SPEAKERS[one["role"]], "value": one["content"]} for one in messages],
        "chosen": {"from": "gpt", "value": text_of(preference["chosen"])},
        "rejected": {"from": "gpt", "value": text_of(preference["rejected"])},
    }
