"""Responses as one padded batch of token ids."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.shapes import Bool, Float, Int


@dataclass(frozen=True)
class ResponseBatch:
    """Prompts with their responses, padded on one `side`.

    `attention_mask` marks real tokens, `response_mask` those of the response, a generated end-of-text token included.
    """

    input_ids: Int[Tensor, "examples tokens"]
    attention_mask: Int[Tensor, "examples tokens"]
    response_mask: Bool[Tensor, "examples tokens"]
    side: Literal["right", "left"]

    def each(self) -> "Iterator[ResponseBatch]":
        """Each example as a batch of its own, without padding."""
        for row, attended in enumerate(self.attention_mask.bool()):
            yield ResponseBatch(
                self.input_ids[row, attended][None],
                self.attention_mask[row, attended][None],
                self.response_mask[row, attended][None],
                self.side,
            )


@dataclass(frozen=True)
class GradientBatch:
    """What one backward pass says about each response.

    `features` are projected gradients of `logps`, not normalised; `exact_norms` are the norms before projection, None
    where they were not computed; `logps` is log π(y | x) summed over response tokens. float32, or float64 for a
    float64 model.
    """

    features: Float[Tensor, "examples proj_dim"]
    exact_norms: Float[Tensor, " examples"] | None
    logps: Float[Tensor, " examples"]


def pad_responses(
    prompt_token_ids: Sequence[Sequence[int]],
    token_ids: Sequence[Sequence[int]],
    pad_token_id: int,
    device: torch.device | str,
    side: Literal["right", "left"] = "right",
) -> ResponseBatch:
    """Join each prompt and response and pad to the longest; nothing is cut and nothing is added.

    Raises InvalidDataError for an empty prompt, after which a first response token has no probability, and ValueError
    for no examples or lists of unequal length.
    """
    rows = list(zip(prompt_token_ids, token_ids, strict=True))
    if not rows:
        raise ValueError("a batch needs at least one response")
    if not all(prompt for prompt, _ in rows):
        raise InvalidDataError(
            "a prompt has no tokens, so its response's first token has no probability",
            hint="use a tokenizer that adds a beginning-of-text token, or remove the empty prompt",
        )
    longest = max(len(prompt) + len(response) for prompt, response in rows)
    input_ids = torch.full((len(rows), longest), pad_token_id, dtype=torch.int64)
    attention_mask = torch.zeros(len(rows), longest, dtype=torch.int64)
    response_mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, (prompt, response) in enumerate(rows):
        end = len(prompt) + len(response) if side == "right" else longest
        start = end - len(response)
        begin = start - len(prompt)
        input_ids[row, begin:end] = torch.tensor([*prompt, *response], dtype=torch.int64)
        attention_mask[row, begin:end] = 1
        response_mask[row, start:end] = True
    return ResponseBatch(input_ids.to(device), attention_mask.to(device), response_mask.to(device), side)
