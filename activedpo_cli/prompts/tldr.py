"""Reddit posts to summarise, from the hub dataset trl-lib/tldr.

Each row has `prompt` (subreddit, title and post, ending in `TL;DR:`) and `completion` (a person's summary, unused here).
"""

from collections.abc import Iterable, Iterator
from typing import Any

from activedpo_cli.base.conversations import parse_prompt
from activedpo_cli.base.settings import PromptSettings
from activedpo_cli.prompts._hub import load_rows
from activedpo_cli.prompts.base import SourcePrompt

DATASET = "trl-lib/tldr"


def read(settings: PromptSettings) -> Iterator[SourcePrompt]:
    """The posts of one split (train, validation or test)."""
    return parse(load_rows(DATASET, settings.dataset_split, "prompt"), settings.dataset_split)


def parse(rows: Iterable[dict[str, Any]], split: str) -> Iterator[SourcePrompt]:
    """The prompts of rows of the published schema, as published."""
    for number, row in enumerate(rows, start=1):
        origin = f"{DATASET} {split} row {number}"
        yield SourcePrompt(prompt=parse_prompt(row.get("prompt"), origin), origin=origin)
