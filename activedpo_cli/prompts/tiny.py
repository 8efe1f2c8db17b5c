"""Beginnings of very short stories for the built-in model; ship with the package, no network needed.

1,000 for the pool and 200 that are only for evaluation, all different. The reward model was trained on other prompts; a few
of these begin a story that the language model has learnt from, as chance would have it. No setting changes them.
"""

from collections.abc import Iterator
from typing import Literal

from activedpo_cli.base.settings import PromptSettings
from activedpo_cli.models.built_in import ASSETS
from activedpo_cli.prompts.base import SourcePrompt


def read(settings: PromptSettings) -> Iterator[SourcePrompt]:
    """Those of the pool first, the same on every machine."""
    yield from _read("train")
    yield from _read("eval")


def _read(split: Literal["train", "eval"]) -> Iterator[SourcePrompt]:
    name = f"prompts-{split}.txt"
    for number, line in enumerate((ASSETS / name).read_text(encoding="utf-8").splitlines(), 1):
        yield SourcePrompt(prompt=line, origin=f"{name} line {number}", split=split)
