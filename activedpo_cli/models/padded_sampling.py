"""What sampling a batch stands on: rows padded on the left, the own defaults of a model hidden, numbers neither changes."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

STEPS = 8
"""Tokens; some mistakes of a cache show only after a few."""


@contextmanager
def without_checkpoint_defaults(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Hide the checkpoint's generation settings: `generate` takes from them every field that is None in ours."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    holders: list[Any] = list({id(holder): holder for holder in (model, base)}.values())
    saved = [holder.generation_config for holder in holders]
    for holder in holders:
        holder.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for holder, config in zip(holders, saved, strict=True):
            holder.generation_config = config


def left_padded(rows: Sequence[Sequence[int]], padding: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of rows that end together."""
    width = max(len(row) for row in rows)
    input_ids = torch.tensor([[padding] * (width - len(row)) + list(row) for row in rows], dtype=torch.long)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], dtype=torch.long)
    return input_ids.to(device), mask.to(device)


def change_by_later_tokens(model: PreTrainedModel, token_ids: Sequence[int], others: Sequence[int]) -> float:
    """How much the last logits of a text change when tokens behind it do, in standard deviations.

    It is 0 for a causal model, and infinite for one whose logits are no numbers.
    """
    kept = len(token_ids) - len(others)
    looked_at = min(kept, STEPS)
    one, other = (
        _logits(model, [*token_ids[:kept], *rest], looked_at + len(rest))[:looked_at]
        for rest in (token_ids[kept:], others)
    )
    return _difference(one, other)


def change_by_batch(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> float:
    """How much the logits of a few sampled tokens differ from those of each row read alone, in standard deviations.

    They are sampled as a batch, with padding and a cache, and read in one pass without either. It is infinite where
    logits are no numbers.
    """
    input_ids, mask = left_padded(rows, rows[0][0], model.device)
    config = GenerationConfig(do_sample=False, use_cache=True, max_new_tokens=STEPS, pad_token_id=rows[0][0])
    config.output_logits = config.return_dict_in_generate = True
    with torch.inference_mode(), without_checkpoint_defaults(model):
        generate: Any = model.generate
        made = generate(input_ids=input_ids, attention_mask=mask, generation_config=config)
    largest = 0.0
    for place, row in enumerate(rows):
        sampled = made.sequences[place, input_ids.shape[1] :].tolist()
        alone = _logits(model, [*row, *sampled[:-1]], len(sampled))
        largest = max(largest, _difference(torch.stack([step[place] for step in made.logits]).float(), alone))
    return largest


def _logits(model: PreTrainedModel, token_ids: Sequence[int], last: int) -> Tensor:
    """Those of the last few tokens of a text that is read without a cache; most models make no others then."""
    fewer = {"logits_to_keep": last} if "logits_to_keep" in signature(model.forward).parameters else {}
    with torch.inference_mode():
        read: Any = model(input_ids=torch.tensor([list(token_ids)], device=model.device), use_cache=False, **fewer)
    return read.logits[0, -last:].float()


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest, in standard deviations; infinite where there are no numbers, none where both have the same infinity."""
    largest = torch.where(one == other, 0.0, (one - other).abs()).max()
    found = (largest / other[other.isfinite()].std().clamp_min(1e-6)).item()
    return math.inf if math.isnan(found) else found
