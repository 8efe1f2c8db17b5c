"""Responses from a file, made by any engine, with the scores and preferences that came with them.

Each row has one of the shapes below; rows of one prompt are gathered. Equal texts become one response, whose scores are
the means of the values recorded for them.

    {prompt, responses: [text or {text, finish_reason, any number is a score}]}
    {prompt, response, any number is a score}
    {prompt, chosen, rejected}               TRL's preferences, as text or as messages
    {prompt, response_a, response_b, preference: a | b | tie | null}
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from activedpo_cli.errors import InvalidDataError
from activedpo_cli.generation._recorded_rows import RowPreference, RowResponse, parse_row, repeats_prompt
from activedpo_cli.records import Prompt, PromptText, RecordedPreference, response_id
from activedpo_cli.tables import excerpt, read_table

FinishReason = Literal["stop", "length", "recorded"]


@dataclass(frozen=True, kw_only=True)
class RecordedResponse:
    """A response made elsewhere; `finish_reason` is None where the file does not say `stop` or `length`."""

    text: str
    scores: dict[str, float]
    finish_reason: str | None


@dataclass(frozen=True, kw_only=True)
class RecordedPrompt:
    """Everything a file says about one prompt.

    `preferences` holds (index a, index b, index preferred or None for a tie), one entry for every verdict, so that
    repeated and contradictory verdicts stay visible; verdicts between two equal texts say nothing and are only counted,
    in `identical_preferences`. `origin` is the row where the prompt first stands.
    """

    prompt: PromptText
    responses: list[RecordedResponse]
    preferences: list[tuple[int, int, int | None]]
    identical_preferences: int
    origin: str


@dataclass(frozen=True, kw_only=True)
class PoolResponse:
    """A recorded response as the pool of a run names it, without tokens yet."""

    response_id: str
    prompt_id: str
    index: int
    text: str
    scores: dict[str, float] | None
    finish_reason: FinishReason


@dataclass(frozen=True, kw_only=True)
class PoolMatch:
    """Recorded responses joined to the prompts of a run.

    `prompts_without_responses` counts prompts of the run that the file lacks; `unmatched` counts prompts of the file
    that the run lacks.
    """

    pool: list[PoolResponse]
    preferences: list[RecordedPreference]
    prompts_without_responses: int
    unmatched: int
    identical_preferences: int


class HeldOutPreference(NamedTuple):
    """One preference read for evaluation; `chosen` and `rejected` can be equal, as in real data."""

    prompt: PromptText
    chosen: str
    rejected: str
    origin: str


def read_recorded(path: Path) -> list[RecordedPrompt]:
    """All prompts of a file of responses, in the order in which they first stand in it.

    Where every `chosen` and `rejected` of the file begins with its prompt's text, that repetition is cut off.

    Raises:
        InvalidDataError: a row has no known shape, an unusable text or a score that is not finite; names the row.

    """
    gathered: dict[str, _Gathering] = {}
    for prompt, responses, preferences, origin in _parsed_rows(path):
        gathering = gathered.setdefault(_prompt_key(prompt), _Gathering(prompt, origin))
        indices = [gathering.add(response) for response in responses]
        for preference in preferences:
            gathering.add_preference(preference, indices)
    return [gathering.result() for gathering in gathered.values()]


def read_preferences(path: Path) -> list[HeldOutPreference]:
    """The decided preferences of a file, one for each verdict, in file order; ties are left out.

    Raises InvalidDataError as `read_recorded` does, and where no row holds a decided preference.
    """
    found = [
        HeldOutPreference(
            prompt,
            responses[preference.preferred].text,
            responses[preference.other].text,
            origin,
        )
        for prompt, responses, preferences, origin in _parsed_rows(path)
        for preference in preferences
        if preference.preferred is not None
    ]
    if not found:
        raise InvalidDataError(
            f"{path} holds no preferences", details=["a row needs prompt, chosen and rejected (TRL's columns)"]
        )
    return found


def match_to_prompts(recorded: Iterable[RecordedPrompt], prompts: Iterable[Prompt]) -> PoolMatch:
    """Join recorded responses to prompts whose content is exactly equal.

    Raises InvalidDataError where not a single prompt matches.
    """
    by_key = {_prompt_key(item.prompt): item for item in recorded}
    wanted = list(prompts)
    matched = [(prompt.prompt_id, by_key[key]) for prompt in wanted if (key := _prompt_key(prompt.prompt)) in by_key]
    if not matched:
        raise _nothing_matched(by_key.values(), wanted)
    return PoolMatch(
        pool=[response for prompt_id, item in matched for response in _pool_responses(prompt_id, item)],
        preferences=[preference for prompt_id, item in matched for preference in _pool_preferences(prompt_id, item)],
        prompts_without_responses=len(wanted) - len(matched),
        unmatched=len(by_key) - len(matched),
        identical_preferences=sum(item.identical_preferences for _, item in matched),
    )


class _Gathering:
    """One prompt while its rows are read."""

    def __init__(self, prompt: PromptText, origin: str) -> None:
        self.prompt = prompt
        self.origin = origin
        self.found: dict[str, list[RowResponse]] = {}
        self.index_of: dict[str, int] = {}
        self.preferences: list[tuple[int, int, int | None]] = []
        self.identical_preferences = 0

    def add(self, response: RowResponse) -> int:
        """Take in a response; returns its index among the distinct texts of this prompt."""
        self.found.setdefault(response.text, []).append(response)
        return self.index_of.setdefault(response.text, len(self.index_of))

    def add_preference(self, preference: RowPreference, indices: list[int]) -> None:
        """Take in a verdict on two of the responses of a row, which stand at `indices`."""
        index_a, index_b = indices[preference.index_a], indices[preference.index_b]
        if index_a == index_b:
            self.identical_preferences += 1
            return
        preferred = None if preference.preferred is None else indices[preference.preferred]
        self.preferences.append((index_a, index_b, preferred))

    def result(self) -> RecordedPrompt:
        return RecordedPrompt(
            prompt=self.prompt,
            origin=self.origin,
            responses=[_merged(same_text) for same_text in self.found.values()],
            preferences=self.preferences,
            identical_preferences=self.identical_preferences,
        )


def _merged(same_text: list[RowResponse]) -> RecordedResponse:
    names = dict.fromkeys(name for response in same_text for name in response.scores)
    reasons = [response.finish_reason for response in same_text if response.finish_reason]
    return RecordedResponse(
        text=same_text[0].text,
        scores={name: _mean([r.scores[name] for r in same_text if name in r.scores]) for name in names},
        finish_reason=reasons[0] if reasons else None,
    )


def _mean(values: list[float]) -> float:
    if min(values) == max(values):  # dividing could round a value that nothing disagrees with
        return values[0]
    return math.fsum(value / len(values) for value in values)


def _parsed_rows(path: Path) -> Iterator[tuple[PromptText, list[RowResponse], list[RowPreference], str]]:
    rows = list(read_table(path))
    values_are_text = path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv"))
    cut_prompt = repeats_prompt(rows)
    for row in rows:
        prompt, responses, preferences = parse_row(row, cut_prompt=cut_prompt, numbers_in_text=values_are_text)
        yield prompt, responses, preferences, row.origin


def _prompt_key(prompt: PromptText) -> str:
    return json.dumps(prompt, ensure_ascii=False, sort_keys=True)


def _pool_responses(prompt_id: str, item: RecordedPrompt) -> Iterator[PoolResponse]:
    for index, response in enumerate(item.responses):
        yield PoolResponse(
            response_id=response_id(prompt_id, None, index),
            prompt_id=prompt_id,
            index=index,
            text=response.text,
            scores=response.scores or None,
            finish_reason=_finish_reason(response.finish_reason),
        )


def _finish_reason(value: str | None) -> FinishReason:
    if value == "stop":
        return "stop"
    return "length" if value == "length" else "recorded"


def _pool_preferences(prompt_id: str, item: RecordedPrompt) -> Iterator[RecordedPreference]:
    for index_a, index_b, preferred in item.preferences:
        yield RecordedPreference(
            prompt_id=prompt_id,
            response_a_id=response_id(prompt_id, None, index_a),
            response_b_id=response_id(prompt_id, None, index_b),
            preferred_id=None if preferred is None else response_id(prompt_id, None, preferred),
        )


def _nothing_matched(recorded: Iterable[RecordedPrompt], prompts: list[Prompt]) -> InvalidDataError:
    details = [f"recorded, {item.origin}: {excerpt(item.prompt)}" for item in list(recorded)[:1]]
    details += [f"in the run, {prompt.prompt_id}: {excerpt(prompt.prompt)}" for prompt in prompts[:1]]
    return InvalidDataError(
        "no recorded response belongs to a prompt of this run; prompts are compared character by character",
        details=details,
        hint="make the run from the same file: --prompts FILE --responses FILE",
    )
