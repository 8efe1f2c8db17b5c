"""Rows of prompts and responses, as TRL's data sets have them, brought to tokens and pairs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from activedpo_cli.base.columns import ARGUMENTS
from activedpo_cli.base.errors import InvalidDataError, UsageError, naming
from activedpo_cli.base.foreign_rows import known_row
from activedpo_cli.base.records import PromptText
from activedpo_cli.base.repetition import Repetition
from activedpo_cli.base.tables import Row
from activedpo_cli.generate.backends._recorded_rows import RowPreference, RowResponse, is_pair, parse_row
from activedpo_cli.models.encoding import AnswerEnd, answer_end, encode_prompt, encode_response_text
from activedpo_cli.pairs.pairing import all_pairs, times_sampled, usable_indices

TOKENS = ("prompt_token_ids", "token_ids")
"""Columns of a row that say which tokens its prompt and its response are."""
AS_IT_IS = Repetition(is_cut=False, lines=(), rows=0)
NAMED = 5


@dataclass(frozen=True, kw_only=True)
class ReadRows:
    """Responses in the order of their rows, and the pairs that they form.

    Attributes:
        tokens: Of each prompt with its response.
        texts: The responses.
        prompts: A number for each response, equal where the model reads the same prompt.
        pairs: Two places each; of rows that are pairs one for each row, in their order.
        preferred: For each pair 1, −1 or 0; None unless every row says it.
        times_sampled: How often the text of each response stands among those to its prompt.

    """

    tokens: list[tuple[list[int], list[int]]]
    texts: tuple[str, ...]
    prompts: list[int]
    pairs: list[tuple[int, int]]
    preferred: list[int] | None
    times_sampled: list[int]


@dataclass(frozen=True)
class _Parsed:
    """A row of any known shape, and the tokens that it says it is, if it does."""

    number: int
    prompt: PromptText
    responses: list[RowResponse]
    verdict: list[RowPreference]
    is_pair: bool
    arguments: Mapping[str, Any]
    tokens: tuple[list[int], list[int]] | None


def read_rows(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    generation_config: GenerationConfig | None,
    *,
    append_eos: bool,
) -> ReadRows:
    """Read all rows, which are either all pairs or none.

    A prompt that is a text is read as it is, and messages through the chat template, as TRL's trainers do. With
    `append_eos` a response is ended as they end it, unless its `finish_reason` is `length`.

    Raises:
        UsageError: these are no rows, or some are pairs and others are not.
        InvalidDataError: a row can't be read, or a pair has nothing to choose between; names the row.

    """
    parsed = [_parsed(number, row) for number, row in enumerate(_each(rows))]
    if not parsed:
        raise UsageError("there are no rows")
    kinds = {row.is_pair for row in parsed}
    if len(kinds) > 1:
        other = next(row.number for row in parsed if row.is_pair != parsed[0].is_pair)
        raise UsageError(
            f"row 0 is {'' if parsed[0].is_pair else 'no '}pair of responses, and row {other} is otherwise"
        )
    if kinds == {True}:
        _refuse_nothing_to_choose(parsed)
    encode = _Encoding(tokenizer, generation_config, append_eos=append_eos)
    tokens = [encode.tokens(row, response) for row in parsed for response in row.responses]
    texts = [response.text for row in parsed for response in row.responses]
    number_of: dict[tuple[int, ...], int] = {}
    prompts = [number_of.setdefault(tuple(prompt), len(number_of)) for prompt, _ in tokens]
    by_prompt: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        by_prompt.setdefault(prompt, []).append(place)
    sampled = [1] * len(texts)
    pairs = [(2 * place, 2 * place + 1) for place in range(len(parsed))] if kinds == {True} else []
    for places in by_prompt.values() if kinds == {False} else ():
        known = [texts[place] for place in places], [False] * len(places), False
        usable = [places[index] for index in usable_indices(*known)]
        pairs += all_pairs(usable)
        for place, number in zip(usable, times_sampled(*known), strict=True):
            sampled[place] = number
    return ReadRows(
        tokens=tokens,
        texts=tuple(texts),
        prompts=prompts,
        pairs=pairs,
        preferred=_preferred(parsed) if kinds == {True} else None,
        times_sampled=sampled,
    )


def _each(rows: Any) -> Iterable[Mapping[str, Any]]:
    """The rows of a list, of a data set of `datasets`, or of a table of pandas."""
    if isinstance(rows, str | bytes | Mapping):
        raise UsageError(f"rows are an iterable of mappings, not {type(rows).__name__}")
    return rows.to_dict("records") if type(rows).__name__ == "DataFrame" else rows


def _parsed(number: int, values: Any) -> _Parsed:
    origin = f"row {number}"
    if not isinstance(values, Mapping):
        raise UsageError(f"{origin} is a mapping of columns, not {type(values).__name__}")
    others = {name: value for name, value in values.items() if name not in (*TOKENS, ARGUMENTS)}
    row = known_row(Row(line=number, values=others, origin=origin))
    prompt, responses, verdict = parse_row(row, repetition=AS_IT_IS)
    given = [values.get(name) for name in TOKENS]
    tokens = None
    if all(ids is not None for ids in given):
        if len(responses) != 1:
            raise InvalidDataError(f"{origin} has `token_ids`, which are those of one response, and {len(responses)}")
        tokens = list(given[0] or ()), list(given[1] or ())
    return _Parsed(number, prompt, responses, verdict, is_pair(row), values.get(ARGUMENTS) or {}, tokens)


def _refuse_nothing_to_choose(parsed: Sequence[_Parsed]) -> None:
    """Raise InvalidDataError for pairs whose responses are equal, or one of which has no text."""
    texts = {row.number: [response.text for response in row.responses] for row in parsed}
    bad = [number for number, (a, b) in texts.items() if a == b or not a.strip() or not b.strip()]
    if bad:
        named = ", ".join(map(str, bad[:NAMED])) + (", …" if len(bad) > NAMED else "")
        raise InvalidDataError(
            f"{len(bad)} of {len(parsed)} rows offer no choice, since their responses are equal or one has no text: {named}",
            hint="leave them out first: their labels would say nothing",
        )


def _preferred(parsed: Sequence[_Parsed]) -> list[int] | None:
    if not all(row.verdict for row in parsed):
        return None
    first = [row.verdict[0].preferred for row in parsed]
    return [0 if place is None else 1 - 2 * place for place in first]


class _Encoding:
    """Makes tokens of rows, each prompt once."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None, *, append_eos: bool
    ) -> None:
        self._tokenizer, self._generation_config, self._append_eos = tokenizer, generation_config, append_eos
        self._prompt = cache(self._encoded)
        self._end = cache(self._found_end)

    def tokens(self, row: _Parsed, response: RowResponse) -> tuple[list[int], list[int]]:
        """The ids of a row's prompt and of one of its responses."""
        if row.tokens is not None:
            return row.tokens
        template, arguments = "auto" if isinstance(row.prompt, list) else "never", json.dumps(dict(row.arguments))
        with naming(f"row {row.number}"):
            ended = self._append_eos and response.finish_reason != "length"
            end = self._end(template, arguments) if ended else None
            prompt = self._prompt(json.dumps(row.prompt), template, arguments)
            return prompt, encode_response_text(self._tokenizer, response.text, append_eos=ended, end=end)

    def _encoded(self, prompt: str, template: str, arguments: str) -> list[int]:
        kwargs = json.loads(arguments)
        return encode_prompt(self._tokenizer, json.loads(prompt), chat_template=template, template_kwargs=kwargs)

    def _found_end(self, template: str, arguments: str) -> AnswerEnd | None:
        kwargs = json.loads(arguments)
        return answer_end(self._tokenizer, self._generation_config, (), chat_template=template, template_kwargs=kwargs)
