"""OpenRLHF's train_dpo: the same file as for TRL, and the flags to read it with.

OpenRLHF drops prompts that are too long without a word, and takes line breaks off the end of an answer.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from activedpo_cli.exporters import trl
from activedpo_cli.exporters.base import PREFERENCES, Exported, Preference, are_chats, warnings_about_templates


def export(preferences: Sequence[Preference], folder: Path) -> Exported:
    """TRL's file; a run whose prompts are texts is read without the chat template."""
    template = ["--data.apply_chat_template"] if are_chats(preferences) else []
    flags = [f"--data.dataset {folder / PREFERENCES}", *template, "--data.prompt_key prompt"]
    usage = [*flags, "--ref.model_name_or_path MODEL (the run's initial model)"]
    warnings = warnings_about_templates(preferences, "OpenRLHF")
    longer = (
        "OpenRLHF drops prompts of more than `--data.max_len` tokens (512 unless you say otherwise) without a word, and "
        "cuts answers there"
    )
    return replace(trl.export(preferences, folder), usage=usage, warnings=[*warnings, longer])
