"""Stage 6: measure the new policy on held-out prompts, against π_SFT's responses to the same prompts (paper §4)."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base import discovery
from activedpo_cli.base.config import LATER_MODEL_SETTINGS, LATER_RENDERING_SETTINGS, flat, prompt_rendering
from activedpo_cli.base.errors import InvalidDataError, UsageError, naming
from activedpo_cli.base.launchers import Shard
from activedpo_cli.base.numbers import shown
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.records import Response, response_id
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.step import Context, Stage, always, require, require_each
from activedpo_cli.engine.units import Unit, UnitWork, do_units
from activedpo_cli.evaluate.held_out import FILE, READ_BY, HeldOut, check_held_out, held_out_inputs
from activedpo_cli.evaluate.initial_evaluation import (
    METRICS_NAME,
    check_same_sampling,
    ensure_initial_evaluation,
    has_answers_to,
    prompts_of_initial,
    sampling_settings,
)
from activedpo_cli.evaluate.measures import reward_measures, text_measures
from activedpo_cli.evaluate.measuring import Column, Measuring
from activedpo_cli.generate.prompts_as_read import named_repetitions, repeated_prompts
from activedpo_cli.generate.sampling import (
    ELSEWHERE_SETTINGS,
    SAMPLING_LOGS,
    Answering,
    EncodedPrompt,
    SamplingUnits,
    check_backend,
)
from activedpo_cli.label.scoring import (
    LOGPS_BATCH,
    Scoring,
    evaluated_rows,
    logps_of,
    note_scorer,
    scorer_by_default,
    scorer_inputs,
    scorer_settings,
    scorers_of,
)
from activedpo_cli.oracles.base import parse_spec
from activedpo_cli.pairs.candidates import labels_spent
from activedpo_cli.policy.policy import load_policy, load_tokenizer_of, model_location, reference_digest
from activedpo_cli.store.run import Run

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

REWARDS = ("reward", "second-reward")
"""The columns of the two scorers."""
LOGPS = {
    "logps": "log π of responses",
    "ref-logps": "log π_ref of responses",
    "held-out-logps": "log π of held-out responses",
    "held-out-ref-logps": "log π_ref of held-out responses",
}
REF_LOGPS = ("ref-logps", "held-out-ref-logps")
"""Those columns that π_ref gives."""


def settings(config: Config) -> dict[str, Any]:
    """What the measurement depends on."""
    return (
        flat(config, "seed", "evaluate")
        | sampling_settings(config)
        | scorer_settings(config)
        | {
            "evaluate.scorer": scorer_by_default(config),
            "generate.recorded_eos": config.generate.recorded_eos,
            "train.beta": config.train.beta,
        }
    )


def inputs(run: Run, iteration: int, config: Config) -> dict[str, str]:
    """The new adapter, π_ref, the prompts, the scorers, and the labels that were spent."""
    digests = {"prompts": run.facts["prompts_digest"], "reference": reference_digest(run)}
    digests[f"iter-{iteration:03d}/train"] = require(run, "train", iteration)
    digests |= require_each(run, "label", range(1, iteration + 1))
    return digests | scorer_inputs(config) | held_out_inputs(run, iteration, config)


def check(context: Context) -> None:
    """Refuse what could not be measured, or not be compared with π_SFT's responses, before anything is sampled."""
    if not context.run.prompts("eval"):
        raise InvalidDataError(
            "the run holds out no prompts, so there is nothing to evaluate on",
            hint="make another run, with `--eval-prompts 100`",
        )
    for spec in filter(None, scorers_of(context.settings)):
        if not discovery.load("oracles", parse_spec(spec)[0]).SCORES_TEXT:
            raise UsageError(
                f"the oracle `{spec}` cannot score new text", hint="use reward-model:MODEL or python:MODULE:FUNCTION"
            )
    check_same_sampling(context.run, context.settings)
    check_held_out(context.run, context.settings)
    _check_room(context)
    check_backend(context)
    note_scorer(context)


class _HeldOutSampling(UnitWork):
    """Responses of a policy, as it is set, to the held-out prompts; those of π_SFT are all of iteration 0."""

    def __init__(
        self,
        context: Context,
        policy: "PeftModel",
        tokenizer: "PreTrainedTokenizerBase",
        prompts: list[EncodedPrompt],
        iteration: int,
    ) -> None:
        seed = context.settings.seed
        self.folder, self.policy = context.folder, policy
        adapter = context.run.adapter_path(iteration) if iteration else None
        self.sampling = SamplingUnits(
            context,
            Answering(context, policy, tokenizer, adapter),
            prompts,
            context.settings.evaluate,
            make_id=lambda prompt_id, index: response_id(prompt_id, iteration, index),
            seed_of_unit=lambda unit: derive_seed(seed, "evaluate", unit),  # the same in every iteration
        )

    def counted(self) -> tuple[str, str]:
        return "responses to prompts", "prompts"

    def units(self) -> list[Unit]:
        return self.sampling.units()

    def do(self, unit: Unit) -> None:
        self.sampling.do(unit)

    def let_go(self) -> None:
        self.sampling.let_go()

    def finish(self) -> dict[str, Any]:
        responses = self.sampling.responses()
        counts = {"responses": len(responses), "prompts": len({row.prompt_id for row in responses})}
        return counts | self.sampling.facts()


class _InitialSampling(_HeldOutSampling):
    """The same with the adapter switched off."""

    def do(self, unit: Unit) -> None:
        from activedpo_cli.models.adapters import reference_mode

        with reference_mode(self.policy):
            self.sampling.do(unit)


class _Evaluation(_HeldOutSampling):
    """Sample, score, and compare with iteration 0."""

    def __init__(self, context: Context) -> None:
        from activedpo_cli.models.loading import context_length

        self._context = context
        self._policy, self._tokenizer, _ = load_policy(context, context.iteration)
        prompts, self._too_long = _eval_prompts(context, self._tokenizer, context_length(self._policy))
        if self._too_long:
            context.progress.warn(f"{len(self._too_long)} held-out prompts are too long for the model's context")
        prompts, self._repeated = _each_once(context, prompts)
        self._initial = ensure_initial_evaluation(
            context, lambda inner: _InitialSampling(inner, self._policy, self._tokenizer, prompts, 0)
        )
        super().__init__(context, self._policy, self._tokenizer, _as_first_read(context, prompts), context.iteration)

    def do_what_is_missing(self, claims: Path, progress: Progress, shard: Shard | None = None) -> bool:
        """Sample; then measure, as one of several processes. Alone `finish` does that, all at once."""
        if not super().do_what_is_missing(claims, progress, shard):
            return False
        return do_units(self._measuring, claims, progress, shard) if shard else True

    def finish(self) -> dict[str, Any]:
        context, measuring = self._context, self._measuring
        first, second = (
            None if spec is None else measuring.values(name, context.progress)
            for name, spec in zip(REWARDS, scorers_of(context.settings), strict=True)
        )
        logps, ref_logps, held_out, ref_held_out = (measuring.values(name, context.progress) for name in LOGPS)
        rows = evaluated_rows(self._responses, rewards=first, second_rewards=second, logps=logps, ref_logps=ref_logps)
        context.folder.write_rows("samples.jsonl", rows)
        metrics = {
            **reward_measures(rows, self._initial),
            **text_measures(rows, self._initial, pure_sampling=_is_pure_sampling(context.settings)),
            **self._held_out.accuracy(held_out, ref_held_out),
            **_facts(context),
            "eval_prompts_too_long": len(self._too_long),
            **({"eval_prompts_repeated": self._repeated} if self._repeated else {}),
        }
        context.folder.write_json(METRICS_NAME, metrics)
        measuring.finish()
        return metrics | self.sampling.facts()

    @cached_property
    def _responses(self) -> list[Response]:
        return self.sampling.responses()

    @cached_property
    def _held_out(self) -> HeldOut:
        return HeldOut(self._context, self._policy, self._tokenizer)

    @cached_property
    def _measuring(self) -> Measuring:
        """All that is measured, once all responses are there."""
        scorings = {
            name: Scoring(self._context, spec)
            for name, spec in zip(REWARDS, scorers_of(self._context.settings), strict=True)
            if spec is not None
        }
        own, held_out = self._responses, self._held_out.responses
        columns = [Column(name, own, scoring.batch, scoring.scores) for name, scoring in scorings.items()]
        for name, responses in zip(LOGPS, (own, own, held_out, held_out), strict=True):
            columns.append(Column(name, responses, LOGPS_BATCH, partial(self._logps, name)))
        return Measuring(self.folder, columns, METRICS_NAME)

    def _logps(self, name: str, responses: Sequence[Response], progress: Progress) -> list[float]:
        from activedpo_cli.models.adapters import reference_mode

        with reference_mode(self._policy) if name in REF_LOGPS else nullcontext():
            return logps_of(self._policy, self._tokenizer, responses, LOGPS[name], progress)


def headline(summary: Mapping[str, Any]) -> str:
    """`reward 0.95 [0.93, 0.97], initially 0.33; win rate 87.0 %`."""
    parts = []
    if summary["reward_mean"] is not None:
        interval = _interval(summary["reward_ci_low"], summary["reward_ci_high"])
        parts.append(
            f"reward {shown(summary['reward_mean'])}{interval}, initially {shown(summary['reward_mean_initial'])}, "
            f"win rate {shown(100 * summary['win_rate'], 1)} %"
        )
    if summary.get("second_reward_mean") is not None:
        parts.append(
            f"by the second scorer {shown(summary['second_reward_mean'])}, initially "
            f"{shown(summary['second_reward_mean_initial'])}, win rate {shown(100 * summary['second_win_rate'], 1)} %"
        )
    if summary["preference_accuracy"] is not None:
        parts.append(f"preference accuracy {shown(100 * summary['preference_accuracy'], 1)} %")
    return "; ".join(parts) or f"{summary['n']} prompts, nothing scored"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{shown(low, 3, high)}, {shown(high, 3, low)}]"


def _is_pure_sampling(config: Config) -> bool:
    """Only what the policy itself samples, in this process, gives an unbiased estimate of its KL to the reference."""
    evaluate = config.evaluate
    is_policy_itself = (evaluate.temperature, evaluate.top_k, evaluate.top_p) == (1.0, 0, 1.0)
    return is_policy_itself and discovery.resolve("generation", config.generate.backend) == "transformers"


def _check_room(context: Context) -> None:
    """Raise InvalidDataError when no held-out prompt leaves room for a response; the model itself is not loaded."""
    from activedpo_cli.models.loading import context_length_at

    longest = context_length_at(*model_location(context.run))
    prompts, too_long = _eval_prompts(context, load_tokenizer_of(context.run), longest)
    if prompts or longest is None:
        return
    lengths = [len(prompt.token_ids) for prompt in too_long]
    room_for_all, room_for_one = longest - max(lengths), longest - min(lengths)
    enough = room_for_all if room_for_all > 0 else room_for_one
    room = _max_new_tokens(context.settings)
    origin = " (that of generate)" if room == context.settings.generate.max_new_tokens else ""
    raise InvalidDataError(
        f"evaluate.max_new_tokens is {room}{origin}, and no held-out prompt leaves room for it",
        details=[f"the model's context has {longest} tokens, the shortest held-out prompt {min(lengths)}"],
        hint=f"--max-new-tokens {enough}" if enough > 0 else None,
    )


def _max_new_tokens(config: Config) -> int:
    return config.evaluate.max_new_tokens or config.generate.max_new_tokens


def _eval_prompts(
    context: Context, tokenizer: "PreTrainedTokenizerBase", longest: int | None
) -> tuple[list[EncodedPrompt], list[EncodedPrompt]]:
    """The held-out prompts that leave room for a response in a context of `longest` tokens, and the others."""
    from activedpo_cli.models.encoding import encode_prompt

    config = context.settings
    fitting: list[EncodedPrompt] = []
    too_long: list[EncodedPrompt] = []
    for prompt in context.run.prompts("eval"):
        with naming(f"prompt `{prompt.prompt_id}`"):
            tokens = encode_prompt(tokenizer, prompt.prompt, **prompt_rendering(config))
        fits = longest is None or len(tokens) + _max_new_tokens(config) <= longest
        (fitting if fits else too_long).append(EncodedPrompt(prompt.prompt_id, tokens))
    return fitting, too_long


def _each_once(context: Context, prompts: list[EncodedPrompt]) -> tuple[list[EncodedPrompt], int]:
    """The prompts without those that the model reads as an earlier one, and how many these are; said.

    Where the initial model was asked them all, by an earlier version, all are: iterations compare only so.
    """
    repeated = repeated_prompts(prompts)
    if not repeated:
        return prompts, 0
    said, initial = named_repetitions(repeated, "held-out prompt"), context.run.initial_evaluation
    if has_answers_to(context.run, repeated):
        context.progress.warn(
            f"{said}; they count twice in `n` and in the intervals, since the initial model answered them all: delete "
            f"`{initial.path}` and the evaluate folders to evaluate all iterations anew, without them"
        )
        return prompts, 0
    context.progress.warn(f"{said}; they are passed over, so that what the model reads counts once")
    return [prompt for prompt in prompts if prompt.prompt_id not in repeated], len(repeated)


def _as_first_read(context: Context, prompts: list[EncodedPrompt]) -> list[EncodedPrompt]:
    """The prompts with the tokens that π_SFT answered, which another version may have rendered otherwise."""
    first = prompts_of_initial(context.run)
    same = [EncodedPrompt(prompt.prompt_id, first.get(prompt.prompt_id, prompt.token_ids)) for prompt in prompts]
    others = sum(now != then for now, then in zip(prompts, same, strict=True))
    if others:
        context.progress.warn(
            f"{others} held-out prompts would be rendered otherwise today; they are read as the initial model read them"
        )
    return same


def _facts(context: Context) -> dict[str, Any]:
    run, iteration = context.run, context.iteration
    selected, initial = run.stage("select", iteration).manifest, run.initial_evaluation.manifest
    spent = sum(labels_spent(run, t) for t in range(1, iteration + 1))
    return {
        "iteration": iteration,
        "labels_spent": spent,
        "method": selected.settings["select.method"] if selected else None,
        "scorer": context.settings.evaluate.scorer,
        "second_scorer": context.settings.evaluate.second_scorer,
        "initial_evaluation": initial.digest if initial else None,
    }


STAGE = Stage(
    "evaluate",
    2,
    settings,
    inputs,
    _Evaluation,
    headline,
    check,
    sections=("evaluate",),
    later=(*LATER_MODEL_SETTINGS, *LATER_RENDERING_SETTINGS),
    # The length is only named in an error, as the source of one that is too large.
    also=("generate.max_new_tokens", *ELSEWHERE_SETTINGS),
    logs=SAMPLING_LOGS,
    readings={READ_BY: FILE},
    is_shared=always,
)
