"""Stage 1: responses of the current policy to the prompts of an iteration (paper §3.1)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.config import (
    LATER_MODEL_SETTINGS,
    LATER_RENDERING_SETTINGS,
    flat,
    loading_settings,
    prompt_rendering,
    prompt_rendering_settings,
)
from activedpo_cli.base.errors import InvalidDataError, naming
from activedpo_cli.base.records import Prompt, Response, response_id
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.step import Context, Stage, always, require
from activedpo_cli.engine.units import AtOnce, Unit, UnitWork, Work
from activedpo_cli.generate import pool
from activedpo_cli.generate.drawing import HELD_OUT, REPEATED, TOO_LONG, DrawnPrompts, draw_prompts
from activedpo_cli.generate.prompts_as_read import (
    refuse_other_prompts,
    refuse_repetition,
    refuse_repetitions,
    started_answers,
    tell_of_other_rendering,
)
from activedpo_cli.generate.sampling import (
    ELSEWHERE_SETTINGS,
    SAMPLING_LOGS,
    Answering,
    EncodedPrompt,
    SamplingUnits,
    check_backend,
    check_rank,
)
from activedpo_cli.pairs.candidates import no_such_score, refuse_unread_score
from activedpo_cli.policy.early_check import READS, check_model
from activedpo_cli.policy.policy import load_policy, load_reference, load_tokenizer_of, reference_digest
from activedpo_cli.policy.rendering_check import check_rendering, check_turn_end, named
from activedpo_cli.store.run import Run

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


DATE = "prompts.template_date"
PROMPTS_NAME = "prompts.json"


def settings(config: Config) -> dict[str, Any]:
    """What the responses depend on; where a policy elsewhere is to be found is none of it."""
    own = {key: value for key, value in flat(config, "seed", "generate").items() if key not in ELSEWHERE_SETTINGS}
    return own | {
        **loading_settings(config),
        **prompt_rendering_settings(config),
    }


def inputs(run: Run, iteration: int, config: Config) -> dict[str, str]:
    """π_ref, the prompts, and the adapter of the iteration before; or the pool of recorded responses."""
    digests = {"prompts": run.facts["prompts_digest"], "reference": reference_digest(run)}
    if config.generate.responses:
        return digests | {"responses file": pool.file_digest(run, config)}
    if iteration > 1:
        digests[f"iter-{iteration - 1:03d}/train"] = require(run, "train", iteration - 1)
    return digests


def check(context: Context) -> None:
    """Refuse more prompts than there are, an iteration before its predecessor is trained, and another pool."""
    if context.iteration > 1:
        require(context.run, "train", context.iteration - 1)
    wanted, present = context.settings.generate.num_prompts, len(context.run.prompts("train"))
    if wanted is not None and wanted > present:
        raise InvalidDataError(
            f"generate.num_prompts is {wanted}, but the run has {present} prompts to draw from",
            hint=f"--num-prompts {present}",
        )
    if context.settings.generate.responses:
        pool.check(context.run, context.settings)
    else:
        check_rank(context)
        check_backend(context)


def open_work(context: Context) -> Work:
    """Draw the prompts and sample, or take the drawn prompts' responses from the pool."""
    if context.settings.generate.responses:
        return AtOnce(lambda: _from_pool(context))
    return _Sampling(context)


def _from_pool(context: Context) -> dict[str, Any]:
    pool.ensure(context)
    _check_answers(context)
    counts = pool.pairable_prompts(context.run, context.settings)
    prompts = [prompt for prompt in context.run.prompts("train") if prompt.prompt_id in counts]
    if not prompts:
        raise InvalidDataError(
            "no prompt has two different responses that could form a pair",
            details=[f"the responses are from {context.settings.generate.responses}"],
            hint="give several responses to each prompt, with --responses FILE",
        )
    drawn = draw_prompts(context, prompts)
    pairs = {"pairs": "given"} if context.settings.generate.recorded_pairs == "given" else {}
    context.folder.write_json(PROMPTS_NAME, {"source": "pool"} | pairs | drawn.as_json())
    responses = sum(counts[prompt.prompt_id] for prompt in drawn.prompts)
    rendered = bool(context.run.pool.manifest and context.run.pool.manifest.summary.get("rendered"))
    facts = {"prompts": len(drawn.prompts), "responses": responses, "rendered": rendered}
    return facts | started_answers(drawn.prompts)


def _check_answers(context: Context) -> None:
    """Refuse a recorded oracle without anything recorded, before features are paid for."""
    field = context.settings.label.score_field
    if field is not None:
        _check_score_field(context, field)
        return
    if context.settings.label.oracle != "recorded" or context.run.pool_preferences():
        return
    scores = sorted({name for response in context.run.pool_responses() for name in response.scores or {}})
    raise InvalidDataError(
        "label.oracle is `recorded`, and the responses came with no preferences",
        details=[f"scores there are: {', '.join(scores) or 'none'}"],
        hint=f"--score-field {scores[0]}" if scores else "another --oracle, such as `human`",
    )


def _check_score_field(context: Context, field: str) -> None:
    refuse_unread_score(context.run, field)
    responses = context.run.pool_responses()
    present = {name for response in responses for name in response.scores or {}}
    if field not in present:
        raise no_such_score(f"no response has the recorded score `{field}`", field, present)
    lacking = sum(field not in (response.scores or {}) for response in responses)
    if lacking:
        context.progress.warn(f"{lacking} of {len(responses)} responses have no `{field}`, so they are in no candidate")


class _Sampling(UnitWork):
    """Responses of θ_{t−1} to drawn prompts."""

    def __init__(self, context: Context) -> None:
        self.folder, self._context = context.folder, context
        check_rendering(
            load_tokenizer_of(context.run),
            named(context.run.prompts()),
            context.settings,
            context.progress,
            is_first=context.iteration == 1,
        )
        answering = _current_policy(context)
        self._policy, self._tokenizer = answering.policy, answering.tokenizer
        _check_sampling(context, self._policy, self._tokenizer)
        _note_dates(context, self._tokenizer)
        if not self.folder.has(PROMPTS_NAME):  # nothing is made yet that would pin settings
            answering.open()
        try:
            self._prepare(answering)
        except BaseException:
            answering.let_go()
            raise

    def _prepare(self, answering: Answering) -> None:
        """Settle the prompts and the units."""
        from activedpo_cli.models.encoding import renders_plain_text

        context = self._context
        seed, iteration = context.settings.seed, context.iteration
        self._renders = renders_plain_text(self._tokenizer, context.settings.prompts.chat_template)
        self._drawn, prompts = self._draw()
        tell_of_other_rendering(context, self._encoded)
        self._sampling = SamplingUnits(
            context,
            answering,
            prompts,
            context.settings.generate,
            make_id=lambda prompt_id, index: response_id(prompt_id, iteration, index),
            seed_of_unit=lambda unit: derive_seed(seed, "generate", iteration, unit),
        )

    def counted(self) -> tuple[str, str]:
        return "responses to prompts", "prompts"

    def units(self) -> list[Unit]:
        return self._sampling.units()

    def do(self, unit: Unit) -> None:
        self._sampling.do(unit)

    def let_go(self) -> None:
        self._sampling.let_go()

    def finish(self) -> dict[str, Any]:
        drawn = self._drawn
        facts = {"prompts": len(drawn.prompts), "prompts_too_long": len(drawn.too_long)}
        made = _summary(self._sampling.responses())
        if made["responses"] and made["truncated"] == made["responses"]:
            longest = self._context.settings.generate.max_new_tokens
            self._context.progress.warn(
                f"all {made['responses']} responses were cut off at {longest} tokens: give more with "
                "--max-new-tokens, or name the token that ends an answer in generate.stop_token_ids"
            )
        rendered = {"rendered": self._renders}
        return made | facts | rendered | started_answers(drawn.prompts) | self._sampling.facts()

    def _draw(self) -> tuple[DrawnPrompts, list[EncodedPrompt]]:
        """The prompts of the iteration, written down, and their tokens."""
        from activedpo_cli.models.loading import context_length

        context, config = self._context, self._context.settings
        longest = context_length(self._policy)
        encoded: dict[str, list[int]] = {}

        def tokens_of(prompt: Prompt) -> list[int]:
            if prompt.prompt_id not in encoded:
                encoded[prompt.prompt_id] = self._encoded(prompt)
            return encoded[prompt.prompt_id]

        held_out = {tuple(tokens_of(prompt)) for prompt in context.run.prompts("eval")}
        drawn_before: set[tuple[int, ...]] = set()

        def why_not(prompt: Prompt) -> str | None:
            tokens = tokens_of(prompt)
            own = tuple(tokens)
            if longest is not None and len(tokens) + config.generate.max_new_tokens > longest:
                return TOO_LONG
            if own in held_out or own in drawn_before:
                refuse_repetition(config, prompt.prompt_id)
                return HELD_OUT if own in held_out else REPEATED
            drawn_before.add(own)
            return None

        if context.iteration == 1:
            refuse_repetitions(config, context.run.prompts(), tokens_of)
        drawn = draw_prompts(context, context.run.prompts("train"), why_not)
        prompts = [EncodedPrompt(prompt.prompt_id, encoded[prompt.prompt_id]) for prompt in drawn.prompts]
        refuse_other_prompts(context, prompts)
        if not context.folder.has(PROMPTS_NAME):  # one of several processes may come when all is done
            context.folder.write_json(PROMPTS_NAME, {"source": "policy"} | drawn.as_json())
        return drawn, prompts

    def _encoded(self, prompt: Prompt) -> list[int]:
        from activedpo_cli.models.encoding import encode_prompt

        with naming(f"prompt `{prompt.prompt_id}`"):
            return encode_prompt(self._tokenizer, prompt.prompt, **prompt_rendering(self._context.settings))


def _check_sampling(
    context: Context, policy: "PreTrainedModel | PeftModel", tokenizer: "PreTrainedTokenizerBase"
) -> None:
    """Raise UsageError for settings that only the model can judge, while nothing is written that would pin them.

    Raises InvalidDataError for a held-out prompt that the model can't read.
    """
    from activedpo_cli.models.encoding import encode_prompt, stop_token_ids
    from activedpo_cli.models.vocabulary import has_unreadable

    if has_unreadable(tokenizer):  # held-out prompts are read when the labels are paid for
        for prompt in context.run.prompts("eval"):
            encode_prompt(tokenizer, prompt.prompt, **prompt_rendering(context.settings))
    stops = stop_token_ids(tokenizer, policy.generation_config, context.settings.generate.stop_token_ids)
    is_first = context.iteration == 1
    check_turn_end(
        tokenizer, named(context.run.prompts()), context.settings, context.progress, stops, is_first=is_first
    )


def _note_dates(context: Context, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Warn where an earlier version let the template read the clock: its prompts have the date of their day."""
    from activedpo_cli.models.chat_template import reads_clock

    template = tokenizer.chat_template
    if not isinstance(template, str) or not reads_clock(template):
        return
    records = [context.run.stage("generate", t).manifest for t in range(1, context.iteration)]
    older = [
        str(record.iteration) for record in (*records, context.folder.started) if record and DATE not in record.settings
    ]
    if older:
        context.progress.warn(
            f"the chat template asks for the date, and an earlier version gave it that of the day: so read the prompts of "
            f"iteration {', '.join(older)}; from now on it is {context.settings.prompts.template_date}"
        )


def _current_policy(context: Context) -> Answering:
    """θ_{t−1}; before any training that is π_ref itself, which needs no adapter."""
    if context.iteration == 1:
        from activedpo_cli.policy.number_format import advice_on_format

        reference = load_reference(context.run, context.settings, context.execution)
        check_model(context, reference)
        if (advice := advice_on_format(reference.model)) is not None:
            context.progress.warn("; ".join(advice))
        return Answering(context, reference.model, reference.tokenizer, None, context.settings.adapter.r)
    policy, tokenizer, _ = load_policy(context, context.iteration - 1)
    return Answering(context, policy, tokenizer, context.run.adapter_path(context.iteration - 1))


def _summary(responses: Sequence[Response]) -> dict[str, Any]:
    tokens = [len(response.token_ids) for response in responses]
    return {
        "responses": len(responses),
        "truncated": sum(response.finish_reason == "length" for response in responses),
        "empty": sum(not response.text.strip() for response in responses),
        "response_tokens_mean": sum(tokens) / max(len(tokens), 1),
    }


def headline(summary: Mapping[str, Any]) -> str:
    """`750 responses to 250 prompts`."""
    return f"{summary['responses']} responses to {summary['prompts']} prompts"


STAGE = Stage(
    "generate",
    1,
    settings,
    inputs,
    open_work,
    headline,
    check,
    sections=("generate",),
    later=(*LATER_MODEL_SETTINGS, *LATER_RENDERING_SETTINGS),
    logs=SAMPLING_LOGS,
    also=(
        *ELSEWHERE_SETTINGS,
        "label.score_field",
        "label.oracle",
        "prompts.duplicates",
        *READS,
    ),  # they decide what is refused or where it is made, and nothing of what is made
    files=pool.FILES,
    is_shared=always,
)
