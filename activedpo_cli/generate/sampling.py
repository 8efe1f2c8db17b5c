"""Sample responses unit by unit, each unit one batch and one file; generate and evaluate share this."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import ActiveDPOError, UsageError
from activedpo_cli.base.records import Response
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import EvaluateSettings, GenerateSettings
from activedpo_cli.engine.step import Context
from activedpo_cli.engine.units import Unit
from activedpo_cli.store.lock import waiting

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from activedpo_cli.generate.backends.base import SampledResponse, Sampler, SamplingSettings


HALVED_NAME = "halved.jsonl"
"""Which units were sampled in smaller batches than asked for: their responses depend on the memory there was."""
OPENED_NAME = "opened.jsonl"
"""What a backend found that samples elsewhere, each time that it was opened."""
SAMPLING_LOGS = (HALVED_NAME, OPENED_NAME)
ELSEWHERE_SETTINGS = tuple(
    f"generate.{name}" for name in GenerateSettings.model_fields if name.startswith(("server_", "vllm_"))
)
"""Settings that say where a policy is to be found, and nothing of what it answers."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the tokens that the model reads."""

    prompt_id: str
    token_ids: list[int]


@dataclass(frozen=True)
class Answering:
    """A policy that answers, by the backend of the settings.

    Attributes:
        context: That of the step that it answers for.
        policy: The loaded model, as it is set when it is asked.
        tokenizer: Turns its tokens into text.
        adapter: The folder of the adapter that is on when it is asked; None where π_ref answers.
        rank: That of adapters to come, where π_ref answers before any is trained.

    """

    context: Context
    policy: "PreTrainedModel | PeftModel"
    tokenizer: "PreTrainedTokenizerBase"
    adapter: Path | None
    rank: int | None = None

    def open(self) -> None:
        """Find the policy where it is elsewhere, which is done in any case before it is asked for the first time."""
        _ = self._sampler

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: "SamplingSettings", seed: int
    ) -> "list[list[SampledResponse]]":
        """The responses to each prompt."""
        if self._sampler is not None:
            return self._sampler.sample_unit(prompts, sampling=sampling, seed=seed)
        from activedpo_cli.models.vocabulary import padding_id

        padding = padding_id(self.tokenizer)
        return self._backend.sample_unit(self.policy, prompts, sampling=sampling, seed=seed, pad_token_id=padding)

    def let_go(self) -> None:
        """End what was started to find the policy; where it is asked once more it is found anew."""
        sampler = self.__dict__.pop("_sampler", None)
        if sampler is not None:
            sampler.close()

    @property
    def _backend(self) -> Any:
        return discovery.load("generation", self.context.settings.generate.backend)

    @cached_property
    def _sampler(self) -> "Sampler | None":
        """What samples elsewhere; None where the loaded model does. What it found is noted."""
        if not hasattr(self._backend, "open_sampler"):
            return None
        from activedpo_cli.generate.backends.base import Policy

        context, base = self.context, self.context.run.base
        adapter = None if self.adapter is None else self.adapter.resolve()
        stored = (context.run.path / base["path"]).resolve() if base["stored_in_run"] else base["path"]
        policy = Policy(
            model=self.policy,
            tokenizer=self.tokenizer,
            adapter=adapter,
            reference=str(stored or base["hub_id"]),
            revision=None if stored else base["revision"],
            rank=self.rank,
        )
        sampler: Sampler = self._backend.open_sampler(
            policy, context.settings.generate, tell=context.progress.warn, note=context.progress.note
        )
        try:
            _change_log(context, OPENED_NAME, lambda rows: [*rows, sampler.facts()])
        except BaseException:
            sampler.close()
            raise
        return sampler


def check_rank(context: Context) -> None:
    """Raise UsageError where the run's adapters have a rank that the backend could not serve, before any is trained."""
    name, rank = context.settings.generate.backend, context.settings.adapter.r
    largest = getattr(discovery.load("generation", name), "LARGEST_RANK", rank)
    if rank > largest:
        raise UsageError(
            f"adapter.r is {rank}, and `--backend {name}` serves adapters of rank {largest} at most",
            hint="`--backend transformers`, or another run with a smaller adapter.r",
        )


def check_backend(context: Context) -> None:
    """Let a backend that samples elsewhere say what would make the work fail, before anything is loaded or written.

    Raises UsageError where the base is quantised here: elsewhere it would be other weights, and the difference may be too
    small for a comparison of log-probabilities to show.
    """
    generate, quantization = context.settings.generate, context.settings.model.quantization
    backend = discovery.load("generation", generate.backend)
    if hasattr(backend, "open_sampler") and quantization != "none":
        raise UsageError(
            f"model.quantization is {quantization}, and with `--backend {generate.backend}` other weights would sample",
            hint="make the run without --quantization, or sample with `--backend transformers`",
        )
    if hasattr(backend, "check"):
        backend.check(generate, tell=context.progress.warn)


@dataclass(frozen=True)
class SamplingUnits:
    """Responses to prompts, a batch of prompts for each unit; generate and evaluate build on it.

    A unit is sampled as one batch with its own seed, so that neither an interruption nor the order of units changes it.
    Where memory does not suffice for it, it is sampled in halves. That changes its responses, so it is said and noted.

    Attributes:
        context: That of the step whose folder the units' files are in.
        answering: What answers.
        prompts: The prompts, in the order of work.
        settings: How many responses of which length, and how they are drawn.
        make_id: The id of a prompt's response by the prompt's id and the response's index.
        seed_of_unit: The seed of a unit, by its number.

    """

    context: Context
    answering: Answering
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

    def let_go(self) -> None:
        """End what was started for the units alone."""
        self.answering.let_go()

    def responses(self) -> list[Response]:
        """The responses of all units, read from their files."""
        return [row for unit in self.units() for row in self.context.folder.read_rows(unit.name, Response)]

    def facts(self) -> dict[str, Any]:
        """For the summary: what a backend that samples elsewhere found, by whichever process; none of any other."""
        name = self.context.settings.generate.backend
        rows = self.context.folder.read_rows(OPENED_NAME, dict) if self.context.folder.has(OPENED_NAME) else []
        return {"backend": {"name": name, **_together(rows)}} if rows else {}

    def _sample(self, prompts: Sequence[EncodedPrompt], seed: int) -> list[Response]:
        return _sample_batch(self.context, self.answering, prompts, self.settings, self.make_id, seed)


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

    def changed(before: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows = [row for row in before if row["unit"] != unit]
        rows += [{"unit": unit, "batches": sizes}] if len(sizes) > 1 else []
        return sorted(rows, key=lambda row: row["unit"])

    _change_log(context, HALVED_NAME, changed)


def _change_log(context: Context, name: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Write a log of the folder anew where a change of its rows makes others of them; other processes may note theirs."""
    with waiting(context.run.lock_path(f"{context.folder.path.parent.name}-{name}")):
        before = context.folder.read_rows(name, dict) if context.folder.has(name) else []
        rows = change(before)
        if rows != before:
            context.folder.write_json_lines(name, rows)


def _together(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What was found each time as one: a number is the largest, of anything else all that there was."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row[key] for row in rows if row.get(key) is not None]
        several = list(dict.fromkeys(values))
        if values and all(isinstance(value, int | float) for value in values):
            found[key] = max(values)
        else:
            found[key] = several[0] if len(several) == 1 else several or None
    return found


def _sample_batch(
    context: Context,
    answering: Answering,
    unit: Sequence[EncodedPrompt],
    settings: GenerateSettings | EvaluateSettings,
    make_id: Callable[[str, int], str],
    seed: int,
) -> list[Response]:
    from activedpo_cli.generate.backends.base import SamplingSettings
    from activedpo_cli.models.encoding import decode_response, stop_token_ids

    generate, tokenizer = context.settings.generate, answering.tokenizer
    sampling = SamplingSettings(
        num_responses=settings.num_responses,
        max_new_tokens=settings.max_new_tokens or generate.max_new_tokens,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        stop_token_ids=stop_token_ids(tokenizer, answering.policy.generation_config, generate.stop_token_ids),
    )
    sampled = answering.sample([prompt.token_ids for prompt in unit], sampling, seed)
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
