"""Rewards and log-probabilities of responses, in bounded batches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from activedpo_cli.oracles.base import open_oracle
from activedpo_cli.records import Response
from activedpo_cli.stages.base import Context

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

LOGPS_BATCH = 16


def score_responses(context: Context, responses: Sequence[Response], scorer: str | None) -> list[float | None]:
    """The scorer's value of each response; None throughout where there is no scorer."""
    if scorer is None:
        return [None] * len(responses)
    prompts = {prompt.prompt_id: prompt.prompt for prompt in context.run.prompts()}
    oracle = open_oracle(scorer, context.config.label, context.execution.device)
    size = context.config.evaluate.unit_size
    scores: list[float | None] = []
    context.progress.start(f"rewards by {scorer}", len(responses), "responses")
    for start in range(0, len(responses), size):
        unit = responses[start : start + size]
        scores += oracle.score([prompts[row.prompt_id] for row in unit], [row.text for row in unit])  # type: ignore[attr-defined]
        context.progress.advance(len(unit))
    context.progress.stop()
    return scores


def logps_of(
    context: Context,
    policy: "PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    responses: Sequence[Response],
    label: str,
) -> list[float]:
    """Log π(y|x) of each response, summed over its tokens, under the policy as it is set."""
    from activedpo_cli.gradients.batch import pad_responses
    from activedpo_cli.gradients.logps import response_logps

    values: list[float] = []
    context.progress.start(label, len(responses), "responses")
    for start in range(0, len(responses), LOGPS_BATCH):
        unit = responses[start : start + LOGPS_BATCH]
        batch = pad_responses(
            [row.prompt_token_ids for row in unit],
            [row.token_ids for row in unit],
            tokenizer.pad_token_id,
            policy.device,
        )
        values += response_logps(policy, batch).tolist()
        context.progress.advance(len(unit))
    context.progress.stop()
    return values
