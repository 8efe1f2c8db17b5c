"""Sample with transformers, in this process

The numbers depend on the shape of the batch, so one call is one batch, and the batch is part of the recipe.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.generate.backends.base import SampledResponse, SamplingSettings
from activedpo_cli.models.padded_sampling import left_padded, without_checkpoint_defaults
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.random_state import seeded_library_state


def sample_unit(
    model: PreTrainedModel | PeftModel,
    prompts_token_ids: Sequence[Sequence[int]],
    *,
    sampling: SamplingSettings,
    seed: int,
    pad_token_id: int | None,
) -> list[list[SampledResponse]]:
    """`num_responses` responses to each prompt, sampled as one batch; the same arguments give the same tokens.

    Only `sampling` decides: the checkpoint's generation_config.json and the library's defaults are set aside. Raises
    ActiveDPOError when the model's probabilities are not finite.
    """
    padding = 0 if pad_token_id is None else pad_token_id  # masked, so any id of the vocabulary does
    input_ids, attention_mask = left_padded(prompts_token_ids, padding, model.device)
    with torch.inference_mode(), quiet_libraries(), seeded_library_state(seed), without_checkpoint_defaults(model):
        generate: Any = model.generate
        sequences = generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            generation_config=_generation_config(sampling, padding),
            logits_processor=LogitsProcessorList([_RequireFinite()]),
        )
    rows = [_cut(row, sampling.stop_token_ids) for row in sequences[:, input_ids.shape[1] :].tolist()]
    count = sampling.num_responses
    return [rows[start : start + count] for start in range(0, len(rows), count)]


class _RequireFinite(LogitsProcessor):
    """Stops before torch samples from NaN, which on a GPU would take the whole process down."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if not torch.isfinite(scores.amax(dim=-1)).all():
            raise ActiveDPOError(
                "the model's next-token probabilities are not finite",
                hint="try `--dtype float32`; if it stays, the weights or the adapter are broken",
            )
        return scores


def _generation_config(sampling: SamplingSettings, pad_token_id: int) -> GenerationConfig:
    return GenerationConfig(
        do_sample=True,
        num_beams=1,
        use_cache=True,
        num_return_sequences=sampling.num_responses,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        repetition_penalty=1.0,
        pad_token_id=pad_token_id,
        eos_token_id=sorted(sampling.stop_token_ids) or None,
    )


def _cut(token_ids: list[int], stops: frozenset[int]) -> SampledResponse:
    """Everything after the first stop token is padding of the batch."""
    for position, token_id in enumerate(token_ids):
        if token_id in stops:
            return SampledResponse(token_ids=token_ids[: position + 1], finish_reason="stop")
    return SampledResponse(token_ids=token_ids, finish_reason="length")
