"""Questions for long answers, from the hub dataset openai/webgpt_comparisons.

Each row compares two answers to `question` ({full_text, dataset, id}); the answers and their scores are unused here.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from activedpo_cli.base.conversations import parse_prompt
from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.settings import PromptSettings
from activedpo_cli.prompts._hub import load_rows
from activedpo_cli.prompts.base import SourcePrompt

DATASET = "openai/webgpt_comparisons"


def read(settings: PromptSettings) -> Iterator[SourcePrompt]:
    """The questions of one split; the published dataset has only `train`."""
    return parse(load_rows(DATASET, settings.dataset_split, "question"), settings.dataset_split)


def parse(rows: Iterable[dict[str, Any]], split: str) -> Iterator[SourcePrompt]:
    """Each question of rows of the published schema once, where it first stands.

    A question is there once for every comparison of its answers, so a repetition says nothing and is not reported.
    """
    seen = set()
    for number, row in enumerate(rows, start=1):
        origin = f"{DATASET} {split} row {number}"
        question = row.get("question")
        if not isinstance(question, dict) or "full_text" not in question:
            raise InvalidDataError(f"{origin} has no `question` with a `full_text`, but {excerpt(question)}")
        prompt = parse_prompt(question["full_text"], origin)
        if prompt not in seen:
            seen.add(prompt)
            yield SourcePrompt(prompt=prompt, origin=origin)
