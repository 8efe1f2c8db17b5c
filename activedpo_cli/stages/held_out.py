"""Accuracy of the implicit reward on held-out preferences: does β log π_θ/π_ref order responses as people did?"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.artifacts.files import sha256_of
from activedpo_cli.artifacts.run import Run
from activedpo_cli.core.statistics import mean_interval
from activedpo_cli.errors import InvalidDataError, NotReadyError
from activedpo_cli.prompts._collect import prompt_key
from activedpo_cli.records import Response, response_id
from activedpo_cli.settings import Config
from activedpo_cli.stages.base import Context
from activedpo_cli.stages.scoring import logps_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class HeldOutPreference:
    """A preference that training never sees."""

    chosen: Response
    rejected: Response


def held_out_inputs(run: Run, config: Config) -> dict[str, str]:
    """Digests of what held-out preferences are read from."""
    digests: dict[str, str] = {}
    if config.evaluate.preferences is not None:
        path = Path(config.evaluate.preferences)
        if not path.is_file():
            raise InvalidDataError(f"the preferences file `{path}` does not exist")
        digests["preferences file"] = f"sha256:{sha256_of(path)}"
    if config.evaluate.score_field is not None:
        manifest = run.pool.manifest
        if manifest is None:
            raise NotReadyError(
                "evaluate.score_field names a recorded score, and this run has no recorded responses",
                hint="give them with `activedpo generate --responses FILE`",
            )
        digests["pool"] = manifest.digest
    return digests


def preference_accuracy(context: Context, policy: "PeftModel", tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """Share of held-out preferences whose chosen response has the larger implicit reward, equal ones counting ½.

    The interval is over prompts. None where there are no held-out preferences.
    """
    from activedpo_cli.models.adapters import reference_mode

    preferences = [*_from_pool(context), *_from_file(context, tokenizer, policy)]
    names = ("preference_accuracy", "preference_accuracy_ci_low", "preference_accuracy_ci_high")
    if not preferences:
        return {**dict.fromkeys(names), "preference_margin_mean": None, "preference_pairs": 0}
    responses = {row.response_id: row for pair in preferences for row in (pair.chosen, pair.rejected)}
    unique = list(responses.values())
    logps = logps_of(context, policy, tokenizer, unique, "log π of held-out responses")
    with reference_mode(policy):
        ref_logps = logps_of(context, policy, tokenizer, unique, "log π_ref of held-out responses")
    beta = context.config.train.beta
    rewards = {row.response_id: beta * (own - ref) for row, own, ref in zip(unique, logps, ref_logps, strict=True)}
    margins = [rewards[pair.chosen.response_id] - rewards[pair.rejected.response_id] for pair in preferences]
    correct: dict[str, list[float]] = {}
    for pair, margin in zip(preferences, margins, strict=True):
        correct.setdefault(pair.chosen.prompt_id, []).append(0.5 if margin == 0 else float(margin > 0))
    interval = mean_interval([sum(values) / len(values) for values in correct.values()])
    return {
        **dict(zip(names, interval, strict=True)),
        "preference_margin_mean": sum(margins) / len(margins),
        "preference_pairs": len(preferences),
    }


def _from_pool(context: Context) -> Iterator[HeldOutPreference]:
    field = context.config.evaluate.score_field
    if field is None:
        return
    held_out = {prompt.prompt_id for prompt in context.run.prompts("eval")}
    scored = [
        response
        for response in context.run.pool_responses()
        if response.prompt_id in held_out and field in (response.scores or {})
    ]
    if not scored:
        raise InvalidDataError(
            f"no held-out response has the score `{field}`", hint="see the fields in pool/responses.jsonl"
        )
    for _, group in groupby(scored, key=lambda response: response.prompt_id):
        for a, b in combinations(group, 2):
            assert a.scores is not None
            assert b.scores is not None
            if a.scores[field] != b.scores[field]:
                yield HeldOutPreference(a, b) if a.scores[field] > b.scores[field] else HeldOutPreference(b, a)


def _from_file(
    context: Context, tokenizer: "PreTrainedTokenizerBase", policy: "PeftModel"
) -> Iterator[HeldOutPreference]:
    from activedpo_cli.generation._recorded import read_preferences
    from activedpo_cli.models.encoding import encode_prompt, encode_response_text
    from activedpo_cli.models.loading import context_length

    path, longest = context.config.evaluate.preferences, context_length(policy)
    if path is None:
        return
    in_pool = {prompt_key(prompt.prompt) for prompt in context.run.prompts("train")}
    too_long = seen = 0
    for number, row in enumerate(read_preferences(Path(path))):
        if row.chosen == row.rejected:
            continue
        if prompt_key(row.prompt) in in_pool:
            seen += 1
            continue
        prompt = encode_prompt(tokenizer, row.prompt, chat_template=context.config.prompts.chat_template)
        sides = []
        for index, text in enumerate((row.chosen, row.rejected)):
            name = f"h{number:06d}"
            tokens = encode_response_text(tokenizer, text, append_eos=context.config.generate.recorded_eos)
            sides.append(
                Response(
                    response_id=response_id(name, None, index),
                    prompt_id=name,
                    prompt_token_ids=prompt,
                    token_ids=tokens,
                    text=text,
                    finish_reason="recorded",
                )
            )
        if longest is not None and max(len(prompt) + len(side.token_ids) for side in sides) > longest:
            too_long += 1
            continue
        yield HeldOutPreference(*sides)
    if seen:
        context.progress.warn(f"{seen} held-out preferences are about prompts of the pool and left out")
    if too_long:
        context.progress.warn(f"{too_long} held-out preferences are longer than the model's context and left out")
