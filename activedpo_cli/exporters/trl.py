"""TRL's DPOTrainer: prompt, chosen and rejected, as messages or as texts.

Rows are those of `label/preferences.jsonl` without what TRL has no use for. Its trainers have no loss for ties.
"""

from collections.abc import Sequence
from pathlib import Path

from activedpo_cli.base.columns import ARGUMENTS
from activedpo_cli.exporters.base import PREFERENCES, Exported, Preference, are_chats, json_lines

COLUMNS = ("prompt", "chosen", "rejected", ARGUMENTS, "pair_id")


def export(preferences: Sequence[Preference], folder: Path) -> Exported:
    """One file for `load_dataset("json", data_files=…)`."""
    are_chats(preferences)
    rows = [{column: preference[column] for column in COLUMNS if column in preference} for preference in preferences]
    usage = [f'load_dataset("json", data_files="{folder / PREFERENCES}", split="train")']
    return Exported(files={PREFERENCES: json_lines(rows)}, rows=rows, usage=usage)
