"""Sample responses unit by unit, each unit one batch and one file; generate and evaluate share this."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from activedpo_cli import discovery
from activedpo_cli.records import Response
from activedpo_cli.settings import EvaluateSettings, GenerateSettings
from activedpo_cli.stages.base import Context

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the tokens that the model reads."""

    prompt_id: str
    token_ids: list[int]


def sample_units(
    context: Context,
    policy: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[EncodedPrompt],
    settings: GenerateSettings | EvaluateSettings,
    *,
    make_id: Callable[[str, int], str],
    seed_of_unit: Callable[[int], int],
) -> list[Response]:
    """All responses, those of units finished earlier read from their files.

    A unit is sampled as one batch with its own seed, so that neither an interruption nor the order of units changes it.
    """
    units = [prompts[start : start + settings.unit_size] for start in range(0, len(prompts), settings.unit_size)]
    names = [f"responses-{unit:05d}.jsonl" for unit in range(len(units))]
    present = [context.folder.has(name) for name in names]
    done = sum(len(unit) for unit, there in zip(units, present, strict=True) if there)
    context.progress.start("responses to prompts", len(prompts), "prompts", done)
    responses: list[Response] = []
    for number, (unit, name, there) in enumerate(zip(units, names, present, strict=True)):
        if not there:
            rows = _sample_unit(context, policy, tokenizer, unit, settings, make_id, seed_of_unit(number))
            context.folder.write_rows(name, rows)
            context.progress.advance(len(unit))
        responses += context.folder.read_rows(name, Response)
    context.progress.stop()
    return responses


def _sample_unit(
    context: Context,
    policy: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    unit: Sequence[EncodedPrompt],
    settings: GenerateSettings | EvaluateSettings,
    make_id: Callable[[str, int], str],
    seed: int,
) -> list[Response]:
    from activedpo_cli.generation.base import SamplingSettings
    from activedpo_cli.models.encoding import decode_response, stop_token_ids

    generate = context.config.generate
    sampling = SamplingSettings(
        num_responses=settings.num_responses,
        max_new_tokens=settings.max_new_tokens or generate.max_new_tokens,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        stop_token_ids=stop_token_ids(tokenizer, policy.generation_config, generate.stop_token_ids),
    )
    sampled = discovery.load("generation", generate.backend).sample_unit(
        policy,
        [prompt.token_ids for prompt in unit],
        sampling=sampling,
        seed=seed,
        pad_token_id=tokenizer.pad_token_id,
    )
    return [
        Response(
            response_id=make_id(prompt.prompt_id, index),
            prompt_id=prompt.prompt_id,
            prompt_token_ids=prompt.token_ids,
            token_ids=response.token_ids,
            text=decode_response(tokenizer, response.token_ids),
            finish_reason=response.finish_reason,
        )
        for prompt, responses in zip(unit, sampled, strict=True)
        for index, response in enumerate(responses)
    ]
