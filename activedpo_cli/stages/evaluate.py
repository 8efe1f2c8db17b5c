"""Stage 6: measure the new policy on held-out prompts, against π_SFT's responses to the same prompts (paper §4)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from activedpo_cli import discovery
from activedpo_cli.artifacts.run import Run
from activedpo_cli.config import flat
from activedpo_cli.errors import UsageError
from activedpo_cli.oracles.base import parse_spec
from activedpo_cli.records import SPENT_OUTCOMES, EvaluatedResponse, Response, response_id
from activedpo_cli.seeds import derive_seed
from activedpo_cli.settings import Config
from activedpo_cli.stages.base import Context, Stage, require
from activedpo_cli.stages.candidates import outcomes
from activedpo_cli.stages.held_out import held_out_inputs, preference_accuracy
from activedpo_cli.stages.initial_evaluation import check_same_settings, ensure_initial_evaluation
from activedpo_cli.stages.label import oracle_inputs
from activedpo_cli.stages.measures import reward_measures, text_measures
from activedpo_cli.stages.policy import load_policy, reference_digest
from activedpo_cli.stages.sampling import EncodedPrompt, sample_units
from activedpo_cli.stages.scoring import logps_of, score_responses

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


def scorer_of(config: Config) -> str | None:
    """Who scores: `evaluate.scorer`, else the label oracle where it can score new text, else nobody."""
    if config.evaluate.scorer is not None:
        return config.evaluate.scorer
    name, _ = parse_spec(config.label.oracle)
    return config.label.oracle if discovery.load("oracles", name).SCORES_TEXT else None


def settings(config: Config) -> dict[str, Any]:
    """What the measurement depends on."""
    return flat(config, "seed", "evaluate") | {
        "evaluate.scorer": scorer_of(config),
        "evaluate.max_new_tokens": config.evaluate.max_new_tokens or config.generate.max_new_tokens,
        "generate.stop_token_ids": config.generate.stop_token_ids,
        "label.input_format": config.label.input_format,
        "label.max_length": config.label.max_length,
        "train.beta": config.train.beta,
        "model.dtype": config.model.dtype,
        "model.attn_implementation": config.model.attn_implementation,
        "prompts.chat_template": config.prompts.chat_template,
    }


def inputs(run: Run, iteration: int, config: Config) -> dict[str, str]:
    """The new adapter, π_ref, the prompts, the scorers, and the labels that were spent."""
    digests = {"prompts": run.facts["prompts_digest"], "reference": reference_digest(run)}
    digests[f"iter-{iteration:03d}/train"] = require(run, "train", iteration)
    for earlier in range(1, iteration + 1):
        digests[f"iter-{earlier:03d}/label"] = require(run, "label", earlier)
    for spec in _scorers(config):
        digests |= oracle_inputs(spec, config)
    return digests | held_out_inputs(run, config)


def check(context: Context) -> None:
    """Refuse settings other than those of the initial evaluation, and oracles that cannot score."""
    for spec in _scorers(context.config):
        if not discovery.load("oracles", parse_spec(spec)[0]).SCORES_TEXT:
            raise UsageError(
                f"the oracle `{spec}` cannot score new text", hint="use reward-model:MODEL or python:MODULE:FUNCTION"
            )
    check_same_settings(context.run, settings(context.config))
    if scorer_of(context.config) is None:
        context.progress.note("nothing scores new text here, so the reward fields will be null (see --scorer)")


def work(context: Context) -> dict[str, Any]:
    """Sample, score, and compare with iteration 0."""
    from activedpo_cli.models.adapters import reference_mode

    run, config = context.run, context.config
    policy, tokenizer, _ = load_policy(run, config, context.execution, context.iteration)
    prompts, too_long = _eval_prompts(context, policy, tokenizer)

    def sample_initial(inner: Context) -> list[EvaluatedResponse]:
        with reference_mode(policy):
            return _scored(inner, _sample(inner, policy, tokenizer, prompts, 0))

    initial = ensure_initial_evaluation(context, settings(config), sample_initial)
    responses = _sample(context, policy, tokenizer, prompts, context.iteration)
    logps = logps_of(context, policy, tokenizer, responses, "log π of responses")
    with reference_mode(policy):
        ref_logps = logps_of(context, policy, tokenizer, responses, "log π_ref of responses")
    rows = [
        replace(row, logps=own, ref_logps=ref)
        for row, own, ref in zip(_scored(context, responses), logps, ref_logps, strict=True)
    ]
    context.folder.write_rows("samples.jsonl", rows)
    metrics = {
        **reward_measures(rows, initial),
        **text_measures(rows, initial, pure_sampling=_is_pure_sampling(config)),
        **preference_accuracy(context, policy, tokenizer),
        **_facts(context),
        "eval_prompts_too_long": too_long,
    }
    context.folder.write_json("metrics.json", metrics)
    return metrics


def headline(summary: Mapping[str, Any]) -> str:
    """`reward 0.95 [0.93, 0.97], initially 0.33; win rate 87.0 %`."""
    parts = []
    if summary["reward_mean"] is not None:
        interval = _interval(summary["reward_ci_low"], summary["reward_ci_high"])
        parts.append(
            f"reward {summary['reward_mean']:.3f}{interval}, initially {summary['reward_mean_initial']:.3f}, "
            f"win rate {100 * summary['win_rate']:.1f} %"
        )
    if summary["preference_accuracy"] is not None:
        parts.append(f"preference accuracy {100 * summary['preference_accuracy']:.1f} %")
    return "; ".join(parts) or f"{summary['n']} prompts, nothing scored"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"


def _scorers(config: Config) -> list[str]:
    return [spec for spec in (scorer_of(config), config.evaluate.second_scorer) if spec is not None]


def _is_pure_sampling(config: Config) -> bool:
    """Only samples of the policy itself give an unbiased estimate of its KL to the reference."""
    return (config.evaluate.temperature, config.evaluate.top_k, config.evaluate.top_p) == (1.0, 0, 1.0)


def _eval_prompts(
    context: Context, policy: "PeftModel", tokenizer: "PreTrainedTokenizerBase"
) -> tuple[list[EncodedPrompt], int]:
    from activedpo_cli.models.encoding import encode_prompt
    from activedpo_cli.models.loading import context_length

    config = context.config
    room = config.evaluate.max_new_tokens or config.generate.max_new_tokens
    longest = context_length(policy)
    encoded = [
        EncodedPrompt(
            prompt.prompt_id, encode_prompt(tokenizer, prompt.prompt, chat_template=config.prompts.chat_template)
        )
        for prompt in context.run.prompts("eval")
    ]
    fitting = [prompt for prompt in encoded if longest is None or len(prompt.token_ids) + room <= longest]
    if len(fitting) < len(encoded):
        context.progress.warn(f"{len(encoded) - len(fitting)} held-out prompts are too long for the model's context")
    return fitting, len(encoded) - len(fitting)


def _sample(
    context: Context,
    policy: "PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: list[EncodedPrompt],
    iteration: int,
) -> list[Response]:
    seed = context.config.seed
    return sample_units(
        context,
        policy,
        tokenizer,
        prompts,
        context.config.evaluate,
        make_id=lambda prompt_id, index: response_id(prompt_id, iteration, index),
        seed_of_unit=lambda unit: derive_seed(seed, "evaluate", unit),  # the same in every iteration
    )


def _scored(context: Context, responses: list[Response]) -> list[EvaluatedResponse]:
    config = context.config
    rewards = score_responses(context, responses, scorer_of(config))
    second_rewards = score_responses(context, responses, config.evaluate.second_scorer)
    return [
        EvaluatedResponse(
            response_id=response.response_id,
            prompt_id=response.prompt_id,
            sample_index=int(response.response_id.rpartition("/r")[2]),
            num_tokens=len(response.token_ids),
            truncated=response.finish_reason == "length",
            reward=reward,
            second_reward=second,
        )
        for response, reward, second in zip(responses, rewards, second_rewards, strict=True)
    ]


def _facts(context: Context) -> dict[str, Any]:
    run, iteration = context.run, context.iteration
    selected = run.stage("select", iteration).manifest
    spent = sum(row.outcome in SPENT_OUTCOMES for t in range(1, iteration + 1) for row in outcomes(run, t))
    return {
        "iteration": iteration,
        "labels_spent": spent,
        "method": selected.settings["select.method"] if selected else None,
        "scorer": scorer_of(context.config),
        "second_scorer": context.config.evaluate.second_scorer,
    }


STAGE = Stage("evaluate", 1, settings, inputs, work, headline, check)
