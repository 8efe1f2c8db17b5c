"""Accuracy of the implicit reward: how often β log π_θ/π_ref ranks held-out preferences as people did."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.config import prompt_rendering
from activedpo_cli.base.errors import NotReadyError, naming
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.records import PromptText, Response, response_id
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.differences import digest_of_known
from activedpo_cli.engine.step import Context
from activedpo_cli.pairs.candidates import no_such_score, refuse_unread_score
from activedpo_cli.statistics.summaries import win_rate_interval
from activedpo_cli.store.run import Run

FILE = "preferences file"
"""The name of the file among the inputs."""
READ_BY, READING = "preferences are read by", "rules 6"
"""What is read from a file of preferences, as an input; what was measured on the same file by older rules stands."""

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from activedpo_cli.generate.backends._recorded import HeldOutPreference, LeftOutRows
    from activedpo_cli.models.encoding import AnswerEnd


@dataclass(frozen=True)
class HeldOutPair:
    """Two tokenized responses to a prompt of which one is preferred; training never sees them."""

    chosen: Response
    rejected: Response


def held_out_inputs(run: Run, iteration: int, config: Config) -> dict[str, str]:
    """Digests of what held-out preferences are read from: as it is, or as recorded where a finished evaluation's is gone."""
    digests: dict[str, str] = {}
    if config.evaluate.preferences is not None:
        record = run.stage("evaluate", iteration).manifest
        digests[FILE] = digest_of_known(record, "evaluate.preferences", FILE, config.evaluate.preferences)
        digests[READ_BY] = READING
    if config.evaluate.score_field is not None:
        manifest = run.pool.manifest
        if manifest is None:
            raise NotReadyError(
                "evaluate.score_field names a recorded score, and this run has no recorded responses",
                hint="give them with `activedpo generate --responses FILE`",
            )
        digests["pool"] = manifest.digest
    return digests


class HeldOut:
    """The held-out preferences of an evaluation, of which there may be none.

    Reading them warns of rows that were left out.
    """

    def __init__(self, context: Context, policy: "PeftModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        self._beta = context.settings.train.beta
        from_file, self._left_out = _from_file(context, tokenizer, policy)
        self._preferences = [*_from_pool(context), *from_file]
        responses = {row.response_id: row for pair in self._preferences for row in (pair.chosen, pair.rejected)}
        self.responses = list(responses.values())

    def accuracy(self, logps: Sequence[float], ref_logps: Sequence[float]) -> dict[str, Any]:
        """Share of the preferences whose chosen response has the larger implicit reward, equal ones counting ½.

        The share is averaged within a prompt and then over prompts, and the interval is Wilson's for that many prompts: the
        preferences about one prompt are not independent of each other. A prompt is what the model reads, its tokens. None
        where there are no held-out preferences.

        Args:
            logps, ref_logps: Log π and log π_ref of each of `responses`.

        """
        import torch

        from activedpo_cli.models.implicit_reward import implicit_reward

        preferences = self._preferences
        counted = {} if self._left_out is None else {"preference_rows_left_out": self._left_out.counts()}
        names = ("preference_accuracy", "preference_accuracy_ci_low", "preference_accuracy_ci_high")
        if not preferences:
            return {**dict.fromkeys(names), "preference_margin_mean": None, "preference_pairs": 0, **counted}
        values = implicit_reward(
            torch.tensor(logps, dtype=torch.float64), torch.tensor(ref_logps, dtype=torch.float64), self._beta
        )
        rewards = {row.response_id: value for row, value in zip(self.responses, values.tolist(), strict=True)}
        margins = [rewards[pair.chosen.response_id] - rewards[pair.rejected.response_id] for pair in preferences]
        correct: dict[tuple[int, ...], list[float]] = {}
        for pair, margin in zip(preferences, margins, strict=True):
            tokens = tuple(pair.chosen.prompt_token_ids)
            correct.setdefault(tokens, []).append(0.5 if margin == 0 else float(margin > 0))
        interval = win_rate_interval([sum(values) / len(values) for values in correct.values()])
        return {
            **dict(zip(names, interval, strict=True)),
            "preference_margin_mean": sum(margins) / len(margins),
            "preference_pairs": len(preferences),
            **counted,
        }


def check_held_out(run: Run, config: Config) -> None:
    """Raise InvalidDataError for a score that no held-out response has, and for a file that holds no preferences."""
    from activedpo_cli.generate.backends._recorded import read_preferences

    if config.evaluate.score_field is not None:
        _scored_responses(run, config.evaluate.score_field)
    if config.evaluate.preferences is not None:
        read_preferences(Path(config.evaluate.preferences), template_kwargs=config.prompts.template_kwargs)


def _scored_responses(run: Run, field: str) -> list[Response]:
    refuse_unread_score(run, field)
    held_out = {prompt.prompt_id for prompt in run.prompts("eval")}
    responses = [response for response in run.pool_responses() if response.prompt_id in held_out]
    scored = [response for response in responses if field in (response.scores or {})]
    if not scored:
        known = {name for response in responses for name in response.scores or {}}
        raise no_such_score(f"evaluate.score_field is `{field}`, a score that no held-out response has", field, known)
    return scored


def _from_pool(context: Context) -> Iterator[HeldOutPair]:
    field = context.settings.evaluate.score_field
    if field is None:
        return
    for _, group in groupby(_scored_responses(context.run, field), key=lambda response: response.prompt_id):
        for a, b in combinations(group, 2):
            assert a.scores is not None
            assert b.scores is not None
            if a.scores[field] != b.scores[field]:
                yield HeldOutPair(a, b) if a.scores[field] > b.scores[field] else HeldOutPair(b, a)


def _from_file(
    context: Context, tokenizer: "PreTrainedTokenizerBase", policy: "PeftModel"
) -> "tuple[list[HeldOutPair], LeftOutRows | None]":
    """The preferences of the file that can be measured, and the rows that were left out; None where no file is named."""
    from activedpo_cli.generate.backends._recorded import read_preferences
    from activedpo_cli.models.encoding import answer_end, encode_prompt
    from activedpo_cli.models.loading import context_length

    rendering, stops = prompt_rendering(context.settings), context.settings.generate.stop_token_ids
    end = answer_end(tokenizer, policy.generation_config, stops, **rendering)
    path, longest = context.settings.evaluate.preferences, context_length(policy)
    if path is None:
        return [], None

    def encoded(prompt: PromptText) -> list[int]:
        return encode_prompt(tokenizer, prompt, **rendering)

    in_pool = {tuple(encoded(prompt.prompt)) for prompt in context.run.prompts("train")}
    kwargs = context.settings.prompts.template_kwargs
    rows, left_out = read_preferences(Path(path), context.progress.warn, template_kwargs=kwargs)
    pairs: list[HeldOutPair] = []
    for number, row in enumerate(rows):
        with naming(row.origin):
            prompt = encoded(row.prompt)
            pair = _pair_of(row, number, prompt, context, tokenizer, end)
        lengths = [len(prompt) + len(side.token_ids) for side in (pair.chosen, pair.rejected)]
        if tuple(prompt) in in_pool:
            left_out.add("in_pool", row.line)
        elif pair.chosen.token_ids == pair.rejected.token_ids:
            left_out.add("same_tokens", row.line)
        elif longest is not None and max(lengths) > longest:
            left_out.add("too_long", row.line)
        else:
            pairs.append(pair)
    if said := left_out.in_words():
        measured = counted(len(pairs), "held-out preference", ("is", "are"))
        context.progress.warn(f"{measured} measured; {said}")
    return pairs, left_out


def _pair_of(
    row: "HeldOutPreference",
    number: int,
    prompt: list[int],
    context: Context,
    tokenizer: "PreTrainedTokenizerBase",
    end: "AnswerEnd | None",
) -> HeldOutPair:
    from activedpo_cli.models.encoding import encode_response_text

    name, append_eos = f"h{number:06d}", context.settings.generate.recorded_eos
    return HeldOutPair(
        *(
            Response(
                response_id=response_id(name, None, index),
                prompt_id=name,
                prompt_token_ids=prompt,
                token_ids=encode_response_text(tokenizer, text, append_eos=append_eos, end=end),
                text=text,
                finish_reason="recorded",
            )
            for index, text in enumerate((row.chosen, row.rejected))
        )
    )
