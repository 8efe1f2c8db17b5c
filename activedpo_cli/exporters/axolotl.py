"""axolotl: messages, chosen and rejected for `chat_template.default`; texts for `passthrough.default`.

axolotl renders an answer behind a message that stands for the prompt, and looks for the answer's text in what it got. A
template that trims leaves a text with blanks at its ends nowhere to be found, and the answer becomes its last character;
so both ends are stripped here. A short text may stand earlier in what the template writes, and the answer then begins there.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from activedpo_cli.base.numbers import counted
from activedpo_cli.exporters import trl
from activedpo_cli.exporters.base import (
    PREFERENCES,
    Exported,
    Preference,
    are_chats,
    json_lines,
    text_of,
    warnings_about_templates,
)

SHORT = 16
"""Characters below which an answer may be found in what the template writes."""
ROLES = frozenset({"system", "user", "assistant", "tool"})


def export(preferences: Sequence[Preference], folder: Path) -> Exported:
    """One file, and how a configuration names it."""
    if not are_chats(preferences):
        plain = trl.export(preferences, folder)
        return Exported(files=plain.files, rows=plain.rows, usage=_usage(folder, "passthrough.default"))
    left_out: Counter[str] = Counter()
    rows, short, stripped = [], 0, 0
    for preference in preferences:
        reason = _unusable(preference)
        if reason:
            left_out[reason] += 1
            continue
        texts = [text_of(preference[side]) for side in ("chosen", "rejected")]
        bare = [text.strip() for text in texts]
        rows.append(_row(preference, *bare))
        short += any(len(text) < SHORT for text in bare)
        stripped += texts != bare
    warnings = warnings_about_templates(preferences, "axolotl")
    if stripped:
        warnings.append(f"blanks at the ends of answers are taken off, in {counted(stripped, 'pair')}")
    if short:
        warnings.append(
            f"an answer has less than {SHORT} characters in {counted(short, 'pair')}: if the chat template writes the same "
            "text itself, axolotl begins the answer there; look at what it prints with `debug: true`"
        )
    return Exported(
        files={PREFERENCES: json_lines(rows)},
        rows=rows,
        left_out=left_out,
        warnings=warnings,
        usage=[*_usage(folder, "chat_template.default"), "chat_template: tokenizer_default"],
    )


def _usage(folder: Path, kind: str) -> list[str]:
    return [
        "rl: dpo",
        "datasets:",
        f"  - path: {folder / PREFERENCES}",
        "    ds_type: json",
        "    split: train",
        f"    type: {kind}",
    ]


def _unusable(preference: Preference) -> str | None:
    """Why axolotl would read something else than is there."""
    bare = [text_of(preference[side]).strip() for side in ("chosen", "rejected")]
    if not all(bare):
        return "an answer is empty without the blanks at its ends"
    if bare[0] == bare[1]:
        return "the answers differ in the blanks at their ends alone"
    if not {message["role"] for message in preference["prompt"]} <= ROLES:
        return "a message is by somebody whom axolotl does not know"
    return None


def _row(preference: Preference, chosen: str, rejected: str) -> dict[str, Any]:
    answers = {
        side: {"role": "assistant", "content": text} for side, text in (("chosen", chosen), ("rejected", rejected))
    }
    return {"messages": preference["prompt"], **answers}
