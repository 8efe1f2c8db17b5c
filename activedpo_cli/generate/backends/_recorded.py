"""Responses from a file, made by any engine, with the scores and preferences that came with them.

Each row has one of the shapes below; rows of one prompt are gathered. Equal texts become one response, whose scores are
the means of the values recorded for them.

    {prompt, responses: [text or {text, finish_reason, any number is a score, also one spelled as text, and true or false}]}
    {prompt, response, any number is a score}
    {prompt, chosen, rejected}               TRL's preferences, as text or as messages
    {prompt, response_a, response_b, preference: a | b | tie | null}
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from activedpo_cli.base.conversations import UnusableRowError
from activedpo_cli.base.conversions import to_pairs, to_preferences
from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.foreign_rows import known_rows
from activedpo_cli.base.records import GivenPair, Prompt, PromptText, RecordedPreference, response_id
from activedpo_cli.base.tables import Row, named_lines
from activedpo_cli.generate.backends._gathering import Gathering, RecordedPrompt, gather
from activedpo_cli.generate.backends._recorded_rows import (
    ParsedRow,
    RowPreference,
    RowResponse,
    answer_without_order,
    is_pair,
    parse_row,
    repetition_of,
    verdict_elsewhere,
    without_verdict_in_order,
)
from activedpo_cli.generate.backends._recorded_scores import unread_lists
from activedpo_cli.prompts._collect import prompt_key

FinishReason = Literal["stop", "length", "recorded"]
EVERY_TWO = "the command makes a pair of every two responses to a prompt:"
ONE_PAIR = "it needs `prompt` with `chosen` and `rejected`, or with `response_a` and `response_b`"


@dataclass(frozen=True, kw_only=True)
class PoolResponse:
    """A recorded response as the pool of a run names it, without tokens yet."""

    response_id: str
    prompt_id: str
    index: int
    text: str
    scores: dict[str, float] | None
    finish_reason: FinishReason
    unread: dict[str, str]


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
    pairs: list[GivenPair]


LEFT_OUT = {
    "empty_prompt": "with an empty prompt",
    "different_prompts": "whose responses answer different prompts",
    "empty_response": "with an empty response",
    "equal_responses": "with equal responses",
    "repeated": "repeated",
    "too_long": "longer than the model's context",
    "same_tokens": "without tokens of their own",
    "held_out": "about prompts that the model reads as held-out ones",
}
"""Why a row of pairs is no candidate: as it is stored, and in words."""
LEFT_OUT_OF_EVALUATION = {
    "tie": "that decide nothing",
    **{reason: words for reason, words in LEFT_OUT.items() if reason not in ("repeated", "held_out")},
    "in_pool": "about prompts of the pool",
}
"""Why a row measures nothing; what is said again about a prompt does measure."""


class LeftOutRows:
    """Rows of pairs that are not used, each once, by the line where it begins; `reasons` gives the words for each reason."""

    def __init__(self, reasons: Mapping[str, str] = LEFT_OUT) -> None:
        self.reasons = reasons
        self.lines: dict[str, list[int]] = {reason: [] for reason in reasons}

    def add(self, reason: str, line: int) -> None:
        """Take in a row, for one of the reasons."""
        self.lines[reason].append(line)

    def counts(self) -> dict[str, int]:
        """How many of each kind, for a summary."""
        return {reason: len(lines) for reason, lines in self.lines.items()}

    def in_words(self) -> str:
        """`left out 2 repeated (lines 5, 9), 1 with equal responses (line 3)`; nothing where there is nothing."""
        kinds = [
            f"{len(lines)} {self.reasons[why]} ({named_lines(lines)})" for why, lines in self.lines.items() if lines
        ]
        return f"left out {', '.join(kinds)}" if kinds else ""


def _tell(say: Callable[[str], None], lines: list[int], what: str) -> None:
    if lines:
        say(f"{len(lines)} {'row has' if len(lines) == 1 else 'rows have'} {what} ({named_lines(lines)})")


def _note_unordered(row: Row, unordered: dict[str, list[int]]) -> None:
    """Take note, by what is to be said of them, of rows with an answer that is no preference."""
    if answer := answer_without_order(row):
        unordered.setdefault(f"the answer `{answer}`, which is no preference between the two", []).append(row.line)
    _note_verdict_elsewhere(row, unordered)


def _note_verdict_elsewhere(row: Row, unordered: dict[str, list[int]]) -> None:
    if name := verdict_elsewhere(row):
        what = f"no `preference`, and `{name}` is not read: rename it where it says a, b or tie"
        unordered.setdefault(what, []).append(row.line)


def _tell_unordered(say: Callable[[str], None], unordered: Mapping[str, list[int]]) -> None:
    for what in sorted(unordered):
        _tell(say, unordered[what], what)


class RecordedPairs(NamedTuple):
    """Pairs of a file, by prompt, the rows left out, and how many rows there are."""

    prompts: list[RecordedPrompt]
    left_out: LeftOutRows
    rows: int


class HeldOutPreference(NamedTuple):
    """One preference read for evaluation; `line` is where its row begins."""

    prompt: PromptText
    chosen: str
    rejected: str
    origin: str
    line: int


def unsaid(message: str) -> None:
    """Tell nobody."""


def as_spelled(prompt: PromptText) -> PromptText:
    """A prompt as its row has it."""
    return prompt


def read_recorded(
    path: Path,
    say: Callable[[str], None] = unsaid,
    *,
    template_kwargs: Sequence[str] | None = None,
    as_read: Callable[[PromptText], PromptText] = as_spelled,
) -> list[RecordedPrompt]:
    """All prompts of a file of responses, in the order in which they first stand in it.

    What is said of prompts for which `as_read` gives the same one is gathered as about that one.

    `template_kwargs` is the setting of the run, and rows may not ask for other arguments of the chat template; None where
    there is no run.

    Where every response of the file begins with its prompt's text, that repetition is cut off; `say` is told.

    Raises:
        InvalidDataError: a row has no known shape or an unusable text; names the row.

    """
    gathered: dict[str, Gathering] = {}
    without: list[int] = []
    blank: list[int] = []
    undecided: list[int] = []
    unordered: dict[str, list[int]] = {}
    unread: dict[str, list[int]] = {}
    for prompt, responses, preferences, row in _parsed_rows(path, say, template_kwargs):
        gather(gathered, as_read(prompt), responses, preferences, row.origin)
        if not responses:
            without.append(row.line)
        if not all(response.text.strip() for response in responses):
            blank.append(row.line)
        if any(responses[verdict.index_a].text == responses[verdict.index_b].text for verdict in preferences):
            undecided.append(row.line)
        _note_unordered(row, unordered)
        for name in unread_lists(row.values, len(responses)) if "responses" in row.values else ():
            unread.setdefault(name, []).append(row.line)
    _tell(say, without, "no response")
    _tell(say, blank, "a response without text, which forms no pair")
    _tell(say, undecided, "a preference between equal texts, which says nothing")
    _tell_unordered(say, unordered)
    for name, lines in unread.items():
        _tell(say, lines, f"a list `{name}` that is not as long as the list of responses, and is not read")
    return [gathering.result() for gathering in gathered.values()]


def read_recorded_pairs(
    path: Path,
    say: Callable[[str], None] = unsaid,
    *,
    template_kwargs: Sequence[str] | None = None,
    as_read: Callable[[PromptText], PromptText] = as_spelled,
) -> RecordedPairs:
    """The same for a file whose rows are pairs, which are kept as such, in an order that does not tell which was chosen.

    Rows that give nothing to choose between, and those that repeat a pair, are left out, and named.

    Raises InvalidDataError as `read_recorded` does, where a row is no pair, and where no row is left.
    """
    gathered: dict[str, Gathering] = {}
    left_out = LeftOutRows()
    unordered: dict[str, list[int]] = {}
    rows, parse = _table(path, say, template_kwargs)
    for row in rows:
        _note_unordered(row, unordered)
        if reason := _take_pair(row, parse, gathered, as_read):
            left_out.add(reason, row.line)
    if not gathered:
        raise InvalidDataError(
            f"{path} holds no pair of two different responses with text", details=[left_out.in_words()]
        )
    _tell_unordered(say, unordered)
    return RecordedPairs([gathering.result() for gathering in gathered.values()], left_out, len(rows))


def _take_pair(
    row: Row,
    parse: Callable[[Row], ParsedRow],
    gathered: dict[str, Gathering],
    as_read: Callable[[PromptText], PromptText],
) -> str | None:
    """Gather the pair of a row; returns why it is left out instead."""
    try:
        prompt, responses, preferences = parse(row)
    except UnusableRowError as error:
        return error.reason
    if not is_pair(row):
        raise InvalidDataError(
            f"{row.origin} holds no pair of responses", details=[ONE_PAIR, EVERY_TWO], hint=to_pairs(row.path)
        )
    if not all(response.text.strip() for response in responses):
        return "empty_response"
    if responses[0].text == responses[1].text:
        return "equal_responses"
    if "chosen" in row.values:
        prompt, responses, preferences = without_verdict_in_order((prompt, responses, preferences))
    gathering, (index_a, index_b) = gather(gathered, as_read(prompt), responses, preferences, row.origin)
    return None if gathering.add_pair(index_a, index_b, row.line) else "repeated"


def read_preferences(
    path: Path, say: Callable[[str], None] = unsaid, *, template_kwargs: Sequence[str] | None = None
) -> tuple[list[HeldOutPreference], LeftOutRows]:
    """The decided preferences of a file, one for each verdict, in file order, and the rows that measure nothing.

    The same rows are left out as from a file of pairs: without a text in the prompt or in a response, and with equal ones.

    Raises InvalidDataError as `read_recorded` does, and where no row holds a decided preference.
    """
    found: list[HeldOutPreference] = []
    left_out = LeftOutRows(LEFT_OUT_OF_EVALUATION)
    unread: dict[str, list[int]] = {}
    rows, parse = _table(path, say, template_kwargs)
    for row in rows:
        _note_verdict_elsewhere(row, unread)
        read = _held_out(row, parse)
        if isinstance(read, str):
            left_out.add(read, row.line)
        else:
            found += read
    if not found:
        details = ["a row needs prompt, chosen and rejected (TRL's columns)", left_out.in_words()]
        _tell_unordered(details.append, unread)
        score = next((name for row in rows for name in _scores(row, parse)), None)
        raise InvalidDataError(
            f"{path} holds no preferences",
            details=[line for line in details if line],
            hint=None if score is None else to_preferences(str(path), score),
        )
    _tell_unordered(say, unread)
    return found, left_out


def _scores(row: Row, parse: Callable[[Row], ParsedRow]) -> Iterator[str]:
    """The scores of the responses of a row that holds no pair."""
    if not is_pair(row):
        yield from (name for response in parse(row)[1] for name in response.scores)


def _held_out(row: Row, parse: Callable[[Row], ParsedRow]) -> list[HeldOutPreference] | str:
    """The preferences of a row, of which there are several only where it has several verdicts; or why it has none."""
    try:
        prompt, responses, preferences = parse(row)
    except UnusableRowError as error:
        return error.reason
    found = []
    for preference in preferences:
        if preference.preferred is None:
            return "tie"
        chosen, rejected = responses[preference.preferred].text, responses[preference.other].text
        if not chosen.strip() or not rejected.strip():
            return "empty_response"
        if chosen == rejected:
            return "equal_responses"
        found.append(HeldOutPreference(prompt, chosen, rejected, row.origin, row.line))
    return found or "tie"


def match_to_prompts(recorded: Iterable[RecordedPrompt], prompts: Iterable[Prompt]) -> PoolMatch:
    """Join recorded responses to prompts whose content is exactly equal.

    Raises InvalidDataError where not a single prompt matches.
    """
    by_key = {prompt_key(item.prompt): item for item in recorded}
    wanted = list(prompts)
    matched = [(prompt.prompt_id, by_key[key]) for prompt in wanted if (key := prompt_key(prompt.prompt)) in by_key]
    if not matched:
        raise _nothing_matched(by_key.values(), wanted)
    return PoolMatch(
        pool=[response for prompt_id, item in matched for response in _pool_responses(prompt_id, item)],
        preferences=[preference for prompt_id, item in matched for preference in _pool_preferences(prompt_id, item)],
        prompts_without_responses=len(wanted) - len(matched),
        unmatched=len(by_key) - len(matched),
        identical_preferences=sum(item.identical_preferences for _, item in matched),
        pairs=[
            GivenPair(
                prompt_id=prompt_id,
                response_a_id=response_id(prompt_id, None, index_a),
                response_b_id=response_id(prompt_id, None, index_b),
                line=line,
            )
            for prompt_id, item in matched
            for index_a, index_b, line in item.pairs
        ],
    )


def _parsed_rows(
    path: Path, say: Callable[[str], None], template_kwargs: Sequence[str] | None
) -> Iterator[tuple[PromptText, list[RowResponse], list[RowPreference], Row]]:
    rows, parse = _table(path, say, template_kwargs)
    for row in rows:
        yield *parse(row), row


def _table(
    path: Path, say: Callable[[str], None], template_kwargs: Sequence[str] | None
) -> tuple[list[Row], Callable[[Row], ParsedRow]]:
    """The rows of a file, and how they are to be read."""
    rows = list(known_rows(path, template_kwargs))
    repetition = repetition_of(rows)
    if said := repetition.in_words():
        say(said)
    return rows, partial(parse_row, repetition=repetition)


def _pool_responses(prompt_id: str, item: RecordedPrompt) -> Iterator[PoolResponse]:
    for index, response in enumerate(item.responses):
        yield PoolResponse(
            response_id=response_id(prompt_id, None, index),
            prompt_id=prompt_id,
            index=index,
            text=response.text,
            scores=response.scores or None,
            finish_reason=_finish_reason(response.finish_reason),
            unread=response.unread,
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
