"""Collects all that a responses file says about each prompt, from rows that may stand far apart."""

import math
from dataclasses import dataclass

from activedpo_cli.base.records import PromptText
from activedpo_cli.generate.backends._recorded_rows import RowPreference, RowResponse
from activedpo_cli.prompts._collect import prompt_key


@dataclass(frozen=True, kw_only=True)
class RecordedResponse:
    """A response made elsewhere; `finish_reason` is None where the file does not say `stop` or `length`.

    `unread` holds values that are there and no finite numbers, by their names: where the first stands, and what it is.
    """

    text: str
    scores: dict[str, float]
    finish_reason: str | None
    unread: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RecordedPrompt:
    """Everything a file says about one prompt.

    `preferences` holds (index a, index b, index preferred or None for a tie), one entry for every verdict, so that
    repeated and contradictory verdicts stay visible; verdicts between two equal texts say nothing and are only counted,
    in `identical_preferences`. `pairs` holds (index a, index b, line) for each two responses that stand in one row as a
    pair, once, where only such are read. `origin` is the row where the prompt first stands.
    """

    prompt: PromptText
    responses: list[RecordedResponse]
    preferences: list[tuple[int, int, int | None]]
    identical_preferences: int
    origin: str
    pairs: tuple[tuple[int, int, int], ...] = ()


class Gathering:
    """One prompt while its rows are read."""

    def __init__(self, prompt: PromptText, origin: str) -> None:
        self.prompt = prompt
        self.origin = origin
        self.found: dict[str, list[RowResponse]] = {}
        self.index_of: dict[str, int] = {}
        self.preferences: list[tuple[int, int, int | None]] = []
        self.identical_preferences = 0
        self.pairs: dict[frozenset[int], tuple[int, int, int]] = {}

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

    def add_pair(self, index_a: int, index_b: int, line: int) -> bool:
        """Take in that two responses stand in one row; returns whether it is the first such row, which counts."""
        return self.pairs.setdefault(frozenset((index_a, index_b)), (index_a, index_b, line))[2] == line

    def result(self) -> RecordedPrompt:
        return RecordedPrompt(
            prompt=self.prompt,
            origin=self.origin,
            responses=[_merged(same_text) for same_text in self.found.values()],
            preferences=self.preferences,
            identical_preferences=self.identical_preferences,
            pairs=tuple(self.pairs.values()),
        )


def gather(
    gathered: dict[str, Gathering],
    prompt: PromptText,
    responses: list[RowResponse],
    preferences: list[RowPreference],
    origin: str,
) -> tuple[Gathering, list[int]]:
    """Take in a row; returns where its prompt is gathered, and the indices of its responses there."""
    gathering = gathered.setdefault(prompt_key(prompt), Gathering(prompt, origin))
    indices = [gathering.add(response) for response in responses]
    for preference in preferences:
        gathering.add_preference(preference, indices)
    return gathering, indices


def _merged(same_text: list[RowResponse]) -> RecordedResponse:
    names = dict.fromkeys(name for response in same_text for name in response.scores)
    reasons = [response.finish_reason for response in same_text if response.finish_reason]
    return RecordedResponse(
        text=same_text[0].text,
        scores={name: _mean([r.scores[name] for r in same_text if name in r.scores]) for name in names},
        finish_reason=reasons[0] if reasons else None,
        unread={name: value for response in reversed(same_text) for name, value in response.unread.items()},
    )


def _mean(values: list[float]) -> float:
    if min(values) == max(values):  # dividing could round a value that nothing disagrees with
        return values[0]
    return math.fsum(value / len(values) for value in values)
