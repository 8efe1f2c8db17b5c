"""What a prompt source is: a module of this folder whose docstring's first line is its help, with one function.

    def read(settings: PromptSettings) -> Iterator[SourcePrompt]

It yields prompts in an order that does not change from call to call. What it yields need not be unique or split:
`_collect` does that for every source.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from activedpo_cli.base.records import PromptText
from activedpo_cli.base.settings import PromptSettings


@dataclass(frozen=True, kw_only=True)
class SourcePrompt:
    """A prompt and where it stands, in words such as `prompts.jsonl line 12`.

    `split` is None where the source leaves it to the run which prompts are held out; a source says it for all or for none.
    """

    prompt: PromptText
    origin: str
    split: Literal["train", "eval"] | None = None


class PromptSource(Protocol):
    """The shape of a source's module."""

    def read(self, settings: PromptSettings) -> Iterator[SourcePrompt]:
        """The prompts of this source, always in the same order; raises InvalidDataError where one is unusable."""
        ...
