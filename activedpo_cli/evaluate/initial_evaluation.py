"""Iteration 0: π_SFT's responses to the held-out prompts, with which every evaluation is compared.

The responses depend on how they were sampled and on nothing else. Their rewards are kept apart, a file for each scorer,
so that an iteration is only ever compared with rewards from its own scorer.
"""

import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from activedpo_cli.base.config import prompt_rendering_settings
from activedpo_cli.base.errors import InvalidDataError, RefusedError
from activedpo_cli.base.records import EvaluatedResponse, Response, ResponseReward
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.differences import differences_of_work
from activedpo_cli.engine.intact import check_intact
from activedpo_cli.engine.parts import Part, ensure
from activedpo_cli.engine.step import Context
from activedpo_cli.engine.units import Work
from activedpo_cli.evaluate.measures import reward_measures, text_measures
from activedpo_cli.evaluate.measuring import Column, Measuring
from activedpo_cli.generate.prompts_as_read import RESPONSES
from activedpo_cli.generate.sampling import SAMPLING_LOGS
from activedpo_cli.label.scoring import Scoring, evaluated_rows, scorer_settings, scorers_of
from activedpo_cli.label.step import oracle_inputs
from activedpo_cli.policy.policy import reference_digest
from activedpo_cli.store.lock import exclusive
from activedpo_cli.store.manifest import Started, digest_of
from activedpo_cli.store.run import Run

INITIAL_VERSION = 2
METRICS_NAME = "metrics.json"
SCORER_SETTINGS = ("label.input_format", "label.max_length", "label.unit_size")
"""The settings that a score depends on beside the scorer and the text, as `scorer_settings` gives them."""

Sample = Callable[[Context], Work]
"""Takes up the sampling of responses to the held-out prompts in a folder."""


def sampling_settings(config: Config) -> dict[str, Any]:
    """What responses to the held-out prompts depend on beside the policy; equal in all iterations of a run."""
    evaluate = config.evaluate
    return {
        "seed": config.seed,
        "evaluate.num_responses": evaluate.num_responses,
        "evaluate.max_new_tokens": evaluate.max_new_tokens or config.generate.max_new_tokens,
        "evaluate.temperature": evaluate.temperature,
        "evaluate.top_k": evaluate.top_k,
        "evaluate.top_p": evaluate.top_p,
        "evaluate.unit_size": evaluate.unit_size,
        "generate.backend": config.generate.backend,
        "generate.stop_token_ids": config.generate.stop_token_ids,
        "model.dtype": config.model.dtype,
        "model.attn_implementation": config.model.attn_implementation,
        **prompt_rendering_settings(config),
    }


def initial_record(run: Run, config: Config) -> Started:
    """What identifies π_SFT's responses to the held-out prompts of a run."""
    return Started(
        stage="initial-evaluation",
        stage_version=INITIAL_VERSION,
        iteration=0,
        settings=sampling_settings(config),
        inputs={"prompts": run.facts["prompts_digest"], "reference": reference_digest(run)},
    )


def check_same_sampling(run: Run, config: Config) -> None:
    """Raise RefusedError when π_SFT's responses were sampled with other settings: iterations would not compare."""
    record = run.initial_evaluation.manifest
    if record is not None:
        _refuse_other_sampling(run, differences_of_work(record, initial_record(run, config)))


def _refuse_other_sampling(run: Run, differences: list[str]) -> None:
    if differences:
        raise RefusedError(
            "the initial evaluation of this run was made with other settings, and iterations compare only under the "
            "same ones",
            details=differences,
            hint="keep those of the initial evaluation (a length left null follows --max-new-tokens of generate), or "
            f"delete `{run.initial_evaluation.path}` and the evaluate folders to evaluate all iterations anew",
        )


def ensure_initial_evaluation(context: Context, sample: Sample) -> list[EvaluatedResponse]:
    """π_SFT's responses, sampled by `sample` unless they are there, with rewards by this evaluation's scorers."""
    run, folder, scorers = context.run, context.run.initial_evaluation, scorers_of(context.settings)
    responses = _ensure_responses(context, sample)
    for spec in filter(None, scorers):
        measuring = _measuring(context, responses, spec)
        measuring.do_with_others(
            run.lock_path("initial-evaluation").with_suffix(""), context.execution, context.progress
        )
    with exclusive(run.lock_path("initial-evaluation"), str(folder.path), context.execution.patience):
        rewards, second_rewards = (
            None if spec is None else _ensure_rewards(context, responses, spec) for spec in scorers
        )
        rows = evaluated_rows(responses, rewards=rewards, second_rewards=second_rewards)
        metrics = initial_metrics(rows, scorers)
        # An evaluation without a scorer has nothing to add to what an earlier one measured.
        if not folder.has(METRICS_NAME) or (any(scorers) and folder.read_json(METRICS_NAME) != metrics):
            folder.write_json(METRICS_NAME, metrics)
    return rows


def prompts_of_initial(run: Run) -> dict[str, list[int]]:
    """The tokens of each held-out prompt as π_SFT read them, by the prompt's id."""
    folder = run.initial_evaluation
    names = folder.manifest.outputs if folder.manifest else ()
    return {row.prompt_id: row.prompt_token_ids for name in names for row in folder.read_rows(name, Response)}


def has_answers_to(run: Run, prompt_ids: Collection[str]) -> bool:
    """Whether π_SFT has answered one of these prompts, finished or not."""
    folder = run.initial_evaluation
    return bool(prompt_ids) and any(
        row.prompt_id in prompt_ids for name in folder.names(RESPONSES) for row in folder.read_rows(name, Response)
    )


def rewards_name(scorer: str, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """The file with a scorer's rewards of π_SFT's responses, named by all that these rewards depend on.

    `inputs` and `settings` may hold more than that: the manifest of an evaluation says by them which rewards it was
    compared with.
    """
    prefix = f"oracle {scorer} "
    identity = {
        "scorer": scorer,
        "inputs": {key: digest for key, digest in inputs.items() if re.fullmatch(re.escape(prefix) + r"\S+", key)},
        **{key: settings[key] for key in SCORER_SETTINGS if key in settings},
    }
    return f"rewards-{digest_of(identity).removeprefix('sha256:')[:12]}.jsonl"


def initial_metrics(rows: Sequence[EvaluatedResponse], scorers: Sequence[str | None]) -> dict[str, Any]:
    """The numbers of iteration 0 by a first and a second scorer, from what they said of π_SFT's responses."""
    return {
        **reward_measures(rows, rows),
        **text_measures(rows, rows, pure_sampling=False),
        "iteration": 0,
        "labels_spent": 0,
        "scorer": scorers[0],
        "second_scorer": scorers[1],
    }


def _ensure_responses(context: Context, sample: Sample) -> list[Response]:
    run, folder = context.run, context.run.initial_evaluation
    part = Part(
        folder=folder,
        lock=run.lock_path("initial-evaluation"),
        wanted=initial_record(run, context.settings),
        open=lambda target: sample(replace(context, folder=target)),
        logs=SAMPLING_LOGS,
        is_shared=True,
        stale=run.stale,
        is_usable=lambda standing: check_intact(run, standing),
        refuse=lambda differences: _refuse_other_sampling(run, differences),
    )
    made, _ = ensure(part, context.execution, context.progress)
    return [row for name in made.outputs for row in folder.read_rows(name, Response)]


def _ensure_rewards(context: Context, responses: Sequence[Response], scorer: str) -> list[float]:
    """The scorer's rewards of the responses, by the file that `rewards_name` names."""
    folder, name = context.run.initial_evaluation, _rewards_name(context, scorer)
    measuring = _measuring(context, responses, scorer)
    rows = folder.read_rows(name, ResponseReward) if folder.has(name) else []
    is_redo = context.folder.path != context.run.stage("evaluate", context.iteration).path
    if is_redo or not rows:  # --force: what a scorer imports may have changed, and no digest covers that
        if is_redo:
            measuring.finish()
        kept, rewards = rows, measuring.values(_stem(name), context.progress)
        rows = [
            ResponseReward(response_id=response.response_id, scorer=scorer, reward=reward)
            for response, reward in zip(responses, rewards, strict=True)
        ]
        if rows != kept:
            folder.write_rows(name, rows)
    measuring.finish()
    by_id = {row.response_id: row.reward for row in rows}
    if by_id.keys() != {response.response_id for response in responses}:
        raise InvalidDataError(
            f"`{folder.path / name}` does not have one reward for each response of the initial model",
            hint=f"rm {shlex.quote(str(folder.path / name))}  # the scorer is then asked again",
        )
    return [by_id[response.response_id] for response in responses]


def _measuring(context: Context, responses: Sequence[Response], scorer: str) -> Measuring:
    name, scoring = _rewards_name(context, scorer), Scoring(context, scorer)
    column = Column(_stem(name), responses, scoring.batch, scoring.scores)
    return Measuring(context.run.initial_evaluation, [column], name)


def _rewards_name(context: Context, scorer: str) -> str:
    config = context.settings
    return rewards_name(scorer, oracle_inputs(scorer, config), scorer_settings(config))


def _stem(name: str) -> str:
    return name.removesuffix(".jsonl")
