"""Sample responses unit by unit, each unit one batch and one file; generate and evaluate share this."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.base.records import Response
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import EvaluateSettings, GenerateSettings
from activedpo_cli.engine.step import Context
from activedpo_cli.engine.units import Unit
from activedpo_cli.store.lock import waiting

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


HALVED_NAME = "halved.jsonl"
"""Which units were sampled in smaller batches than asked for: their responses depend on the memory there was."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the tokens that the model reads."""

    prompt_id: str
    token_ids: list[int]


@dataclass(frozen=True)
class SamplingUnits:
    """Responses to prompts, a batch of prompts for each unit; generate and evaluate build on it.

    A unit is sampled as one batch with its own seed, so that neither an interruption nor the order of units changes it.
    Where memory does not suffice for it, it is sampled in halves. That changes its responses, so it is said and noted.

    Attributes:
        context: That of the step whose folder the units' files are in.
        policy: What answers, as it is set.
        tokenizer: Turns its tokens into text.
        prompts: The prompts, in the order of work.
        settings: How many responses of which length, and how they are drawn.
        make_id: The id of a prompt's response by the prompt's id and the response's index.
        seed_of_unit: The seed of a unit, by its number.

    """

    context: Context
    policy: "PreTrainedModel | PeftModel"
    tokenizer: "PreTrainedTokenizerBase"
    prompts: Sequence[EncodedPrompt]
    settings: GenerateSettings | EvaluateSettings
    make_id: Callable[[str, int], str]
    seed_of_unit: Callable[[int], int]

    def units(self) -> list[Unit]:
        """The units in order."""
        size = self.settings.unit_size
        return [
            Unit(f"responses-{number:05d}.jsonl", len(self.prompts[start : start + size]), self.seed_of_unit(number))
            for number, start in enumerate(range(0, len(self.prompts), size))
        ]

    def do(self, unit: Unit) -> None:
        """Sample one unit and store its responses."""
        number = int(unit.name.removesuffix(".jsonl").rpartition("-")[2])
        start = number * self.settings.unit_size
        prompts = self.prompts[start : start + unit.size]
        assert unit.seed is not None
        batches = _in_batches_that_fit(self._sample, prompts, unit.seed)
        _note_batches(self.context, number, [len({row.prompt_id for row in batch}) for batch in batches])
        self.context.folder.write_rows(unit.name, [row for batch in batches for row in batch])

    def responses(self) -> list[Response]:
        """The responses of all units, read from their files."""
        return [row for unit in self.units() for row in self.context.folder.read_rows(unit.name, Response)]

    def _sample(self, prompts: Sequence[EncodedPrompt], seed: int) -> list[Response]:
        return _sample_batch(self.context, self.policy, self.tokenizer, prompts, self.settings, self.make_id, seed)


def _in_batches_that_fit(
    sample: Callable[[Sequence[EncodedPrompt], int], list[Response]], unit: Sequence[EncodedPrompt], seed: int
) -> list[list[Response]]:
    """The responses to a unit, in one batch or, as often as memory runs out, in halves with seeds of their own."""
    from activedpo_cli.gradients.memory import TooLargeError, in_halves

    def sampled(part: Sequence[EncodedPrompt]) -> list[Response]:
        is_whole = len(part) == len(unit)
        return sample(part, seed if is_whole else derive_seed(seed, "part", part[0].prompt_id, len(part)))

    try:
        return in_halves(sampled, unit)
    except TooLargeError as error:
        prompt: EncodedPrompt = error.row
        raise ActiveDPOError(
            f"memory does not suffice for the responses to `{prompt.prompt_id}` alone, {len(prompt.token_ids)} tokens long",
            hint="go on on a device with more memory, for instance with `--device cpu`; or, from the beginning, with "
            "a smaller --max-new-tokens or fewer --num-responses",
        ) from error


def _note_batches(context: Context, unit: int, sizes: list[int]) -> None:
    """Write down that a unit was sampled in halves, in place of what an interrupted attempt has noted of it."""
    if len(sizes) > 1:
        context.progress.warn(
            f"memory did not suffice for unit {unit} as one batch: sampled in {len(sizes)}, of "
            f"{', '.join(map(str, sizes))} prompts; with more memory its responses would be others"
        )
    if len(sizes) == 1 and not context.folder.has(HALVED_NAME):
        return
    with waiting(context.run.lock_path(f"{context.folder.path.parent.name}-{HALVED_NAME}")):  # others may note theirs
        before = context.folder.read_rows(HALVED_NAME, dict) if context.folder.has(HALVED_NAME) else []
        rows = [row for row in before if row["unit"] != unit]
        rows += [{"unit": unit, "batches": sizes}] if len(sizes) > 1 else []
        rows.sort(key=lambda row: row["unit"])
        if rows != before:
            context.folder.write_json_lines(HALVED_NAME, rows)


def _sample_batch(
    context: Context,
    policy: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    unit: Sequence[EncodedPrompt],
    settings: GenerateSettings | EvaluateSettings,
    make_id: Callable[[str, int], str],
    seed: int,
) -> list[Response]:
    from activedpo_cli.generate.backends.base import SamplingSettings
    from activedpo_cli.models.encoding import decode_response, stop_token_ids
    from activedpo_cli.models.vocabulary import padding_id

    generate = context.settings.generate
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
        pad_token_id=padding_id(tokenizer),
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
