"""What every generation backend offers: one batch of prompts in, responses as token ids out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol


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
