"""Rewards and log-probabilities of responses in batches, for *evaluate* and the column `scores`; not for *label*."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.base.progress import Progress, shown
from activedpo_cli.base.records import EvaluatedResponse, PromptText, Response
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.step import Context
from activedpo_cli.label.step import oracle_inputs
from activedpo_cli.oracles.base import open_oracle, parse_spec

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

LOGPS_BATCH = 16


def scorer_by_default(config: Config) -> str | None:
    """Who will score: `evaluate.scorer`, else the label oracle where it can score new text, else nobody."""
    if config.evaluate.scorer is not None:
        return config.evaluate.scorer
    name, _ = parse_spec(config.label.oracle)
    return config.label.oracle if discovery.load("oracles", name).SCORES_TEXT else None


def scorers_of(config: Config) -> tuple[str | None, str | None]:
    """The scorer and the second one by the settings of an evaluation, who scores filled in; None where nobody does."""
    return config.evaluate.scorer, config.evaluate.second_scorer


def scorer_settings(config: Config) -> dict[str, Any]:
    """What a score depends on beside the scorer and the text; a reward model's batches are `label.unit_size` wide."""
    return {
        "label.input_format": config.label.input_format,
        "label.max_length": config.label.max_length,
        "label.unit_size": config.label.unit_size,
    }


def scorer_inputs(config: Config) -> dict[str, str]:
    """Digests of the scorers that are files or models."""
    digests: dict[str, str] = {}
    for spec in filter(None, scorers_of(config)):
        digests |= oracle_inputs(spec, config)
    return digests


def note_scorer(context: Context) -> None:
    """Say when rewards will be missing, or when those of an earlier iteration came from somebody else."""
    scorer = context.settings.evaluate.scorer
    records = (context.run.stage("evaluate", t).manifest for t in range(context.iteration - 1, 0, -1))
    before = next((record for record in records if record and record.settings["evaluate.scorer"]), None)
    known = before.settings["evaluate.scorer"] if before else None
    if scorer is None:
        earlier = f"; iteration {before.iteration} had `--scorer {known}`" if before else ""
        context.progress.note(
            f"nothing scores new text here, so the reward fields will be null (see --scorer{earlier})"
        )
    elif before and _digests_of(known, before.inputs) != _digests_of(scorer, oracle_inputs(scorer, context.settings)):
        other = f"`{known}`" if known != scorer else f"`{scorer}` before it changed"
        context.progress.warn(
            f"iteration {before.iteration} was scored by {other}: its rewards do not compare with these"
        )


def score_responses(context: Context, responses: Sequence[Response], scorer: str) -> list[float]:
    """The scorer's value of each response."""
    return Scoring(context, scorer).scores(responses, context.progress)


class Scoring:
    """A scorer of an evaluation, opened when it is first asked."""

    def __init__(self, context: Context, scorer: str) -> None:
        self._context, self._scorer = context, scorer

    @property
    def batch(self) -> int:
        """How many responses it is asked about at once."""
        return self._context.settings.evaluate.unit_size

    def scores(self, responses: Sequence[Response], progress: Progress) -> list[float]:
        """Its value of each response."""
        scores: list[float] = []
        with shown(progress, f"rewards by {self._scorer}", len(responses), "responses") as advance:
            for start in range(0, len(responses), self.batch):
                unit = responses[start : start + self.batch]
                prompts = [self._prompts[row.prompt_id] for row in unit]
                scores += self._oracle.score(prompts, [row.text for row in unit])
                advance(len(unit))
        return scores

    @cached_property
    def _prompts(self) -> dict[str, PromptText]:
        return {prompt.prompt_id: prompt.prompt for prompt in self._context.run.prompts()}

    @cached_property
    def _oracle(self) -> Any:
        return open_oracle(self._scorer, self._context.settings.label, self._context.execution.device)


def evaluated_rows(
    responses: Sequence[Response],
    *,
    rewards: Sequence[float] | None,
    second_rewards: Sequence[float] | None,
    logps: Sequence[float] | None = None,
    ref_logps: Sequence[float] | None = None,
) -> list[EvaluatedResponse]:
    """What was measured about each response; None in place of a column that nobody measured."""

    def at(column: Sequence[float] | None, place: int) -> float | None:
        return None if column is None else column[place]

    return [
        EvaluatedResponse(
            response_id=response.response_id,
            prompt_id=response.prompt_id,
            sample_index=int(response.response_id.rpartition("/r")[2]),
            num_tokens=len(response.token_ids),
            truncated=response.finish_reason == "length",
            reward=at(rewards, place),
            second_reward=at(second_rewards, place),
            logps=at(logps, place),
            ref_logps=at(ref_logps, place),
        )
        for place, response in enumerate(responses)
    ]


def logps_of(
    policy: "PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    responses: Sequence[Response],
    label: str,
    progress: Progress,
) -> list[float]:
    """Log π(y|x) of each response, summed over its tokens, under the policy as it is set."""
    from activedpo_cli.gradients.batch import pad_responses
    from activedpo_cli.gradients.logps import response_logps
    from activedpo_cli.gradients.memory import TooLargeError, in_halves
    from activedpo_cli.models.vocabulary import padding_id

    def logps(part: Sequence[Response]) -> list[float]:
        prompts, answers = [row.prompt_token_ids for row in part], [row.token_ids for row in part]
        batch = pad_responses(prompts, answers, padding_id(tokenizer), policy.device)
        return response_logps(policy, batch).tolist()

    values: list[float] = []
    with shown(progress, label, len(responses), "responses") as advance:
        for start in range(0, len(responses), LOGPS_BATCH):
            unit = responses[start : start + LOGPS_BATCH]
            try:
                found = [value for part in in_halves(logps, unit) for value in part]
            except TooLargeError as error:
                raise _too_large(error.row) from error
            _require_finite(unit, found, label)
            values += found
            advance(len(unit))
    return values


def _require_finite(responses: Sequence[Response], values: Sequence[float], label: str) -> None:
    wrong = [(row, value) for row, value in zip(responses, values, strict=True) if not math.isfinite(value)]
    if wrong:
        raise ActiveDPOError(
            f"{label}: the log-probability of `{wrong[0][0].response_id}` is {wrong[0][1]}",
            hint="the policy has probably diverged: look at `loss` and `grad_norm` in metrics.jsonl of train, and train "
            "again with `--force` and a smaller --learning-rate",
        )


def _too_large(response: Response) -> ActiveDPOError:
    tokens = len(response.prompt_token_ids) + len(response.token_ids)
    return ActiveDPOError(
        f"memory does not suffice for the log-probability of `{response.response_id}` alone, {tokens} tokens long",
        hint="go on on a device with more memory, for instance with `--device cpu`",
    )


def _digests_of(spec: str | None, inputs: Mapping[str, str]) -> dict[str, str]:
    """A scorer's digests without its place: a model that was moved is the same."""
    prefix = f"oracle {spec} "
    return {name.removeprefix(prefix): digest for name, digest in inputs.items() if name.startswith(prefix)}
