"""What every generation backend offers: one batch of prompts in, responses as token ids out.

A backend that samples from the loaded model is a module with `sample_unit`. One that has to find the policy elsewhere is a
module with `check` and `open_sampler`: it is told who is to answer, and gives what then samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from activedpo_cli.base.settings import GenerateSettings


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """Every field that shapes the sampling; nothing is left to a library's default.

    `top_k` 0 and `top_p` 1 switch these off. Any of `stop_token_ids` ends a response and belongs to it.
    """

    num_responses: int
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    stop_token_ids: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class SampledResponse:
    """The sampled ids, a generated stop token included, and whether one was generated."""

    token_ids: list[int]
    finish_reason: Literal["stop", "length"]


class GenerationBackend(Protocol):
    """A module of `generate/backends/` with this function."""

    def sample_unit(
        self,
        model: Any,
        prompts_token_ids: Sequence[Sequence[int]],
        *,
        sampling: SamplingSettings,
        seed: int,
        pad_token_id: int | None,
    ) -> list[list[SampledResponse]]:
        """`num_responses` responses to each prompt, in the prompts' order; equal arguments give equal tokens."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Who is to answer.

    Attributes:
        model: The loaded model. As long as it samples its adapter is on, or off where `adapter` is None.
        tokenizer: Its tokenizer.
        adapter: The folder of the adapter that is on; None where π_ref itself answers.
        reference: Where π_ref is, a folder or the id of a hub.
        revision: Of the hub; None of a folder.
        rank: That of adapters to come, where π_ref itself answers before any is trained.

    """

    model: Any
    tokenizer: Any
    adapter: Path | None
    reference: str
    revision: str | None = None
    rank: int | None = None


class Sampler(Protocol):
    """What samples from a policy that it was opened with."""

    def sample_unit(
        self, prompts_token_ids: Sequence[Sequence[int]], *, sampling: SamplingSettings, seed: int
    ) -> list[list[SampledResponse]]:
        """`num_responses` responses to each prompt, in the prompts' order."""

    def facts(self) -> dict[str, Any]:
        """What is to be recorded of how the policy was found, as JSON values."""

    def close(self) -> None:
        """End what was started to find it; it is not asked again."""


class OpeningBackend(Protocol):
    """A module of `generate/backends/` that samples from a policy elsewhere.

    One that serves adapters up to some rank says that in `LARGEST_RANK`, so that a larger one is refused at first.
    """

    def check(self, settings: GenerateSettings, *, tell: Callable[[str], None]) -> None:
        """Raise an ActiveDPOError for what would make the work fail, before any model is loaded and anything written.

        `tell` hears what somebody who waits should know.
        """

    def open_sampler(
        self,
        policy: Policy,
        settings: GenerateSettings,
        *,
        tell: Callable[[str], None],
        note: Callable[[str], None],
    ) -> Sampler:
        """Find the policy, and make sure that it is the one.

        Args:
            policy: Who is to answer.
            settings: Where to look.
            tell: Hears what nobody should miss.
            note: Hears what somebody who waits may want to know.

        """
