"""The row shapes in which responses made elsewhere arrive (listed in `_recorded`), brought to one form."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from activedpo_cli.base.answer_columns import ANSWER_COLUMNS, answer_column
from activedpo_cli.base.column_names import plain_name, spellings
from activedpo_cli.base.columns import is_blank, is_message, require_text, with_conditions
from activedpo_cli.base.conversations import parse_messages, parse_prompt, require_same_prompt, shared_prompt
from activedpo_cli.base.conversions import to_single_rejected
from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.records import PromptText
from activedpo_cli.base.repetition import Repetition, repetition_in
from activedpo_cli.base.table_numbers import as_number
from activedpo_cli.base.tables import Row, refuse_doubtful
from activedpo_cli.generate.backends._recorded_scores import Scores, of_list, of_sides

TEXT_FIELDS = ("text", "response", "completion")
PAIRS = (("chosen", "rejected"), ("response_a", "response_b"))
NO_SCORES = frozenset({"finish_reason"})
SIDES = ("response_a", "response_b")
VERDICTS: dict[str, int | None] = {"a": 0, "b": 1, "tie": None}
VERDICT_NAMES = ("winner", "preferred", "better", "best", "verdict", "choice", "label", "answer")
"""What others call the column `preference`."""
NO_VERDICTS = ("skip", "both_bad")
"""Answers that order nothing: the pair stays in the pool without a recorded preference."""
PAIR_NEEDS = "it needs `prompt` with `responses`, `response`, `chosen` and `rejected`, or `response_a` and `response_b`"

FOREIGN = {
    "response_0": "as in PKU-SafeRLHF, whose rows say both which response is better and which is safer: rename the two to "
    "`response_a` and `response_b`, and make `preference` of the one that is meant",
    "response_1": "rename `response_1` and `response_2` to `response_a` and `response_b`, and give `preference`",
    "output_1": "rename `instruction` to `prompt`, `output_1` and `output_2` to `response_a` and `response_b`, and write "
    "`preference` as a for the first, b for the second",
    "response_j": "rename `question` to `prompt`, `response_j` to `chosen` and `response_k` to `rejected`",
    "conversation_a": "as in Chatbot Arena: `prompt` is the messages before the last of `conversation_a`, `response_a` and "
    "`response_b` are the last of each, and `preference` is the winner",
    "summaries": "as in OpenAI's summaries: `prompt` is what the model reads of `info`, `response_a` and `response_b` are "
    "the texts of `summaries`, and `preference` is a for `choice` 0, b for 1",
    "instruction": "as in Alpaca: put `instruction` and `input` together as `prompt`",
    "question": "rename `question` to `prompt`",
    "conversations": "rename `conversations` to `prompt`, without the answers",
}
"""What other data sets call their columns, and how they become those that are known here."""


@dataclass(frozen=True, kw_only=True)
class RowResponse:
    """A response as one row has it; `unread` says of each value that is there and no finite number where and what it is."""

    text: str
    scores: dict[str, float]
    finish_reason: str | None
    unread: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RowPreference:
    """A verdict, as indices into the row's responses; `preferred` is None for a tie."""

    index_a: int
    index_b: int
    preferred: int | None

    @property
    def other(self) -> int:
        """The index of the response that was not preferred."""
        return self.index_b if self.preferred == self.index_a else self.index_a


ParsedRow = tuple[PromptText, list[RowResponse], list[RowPreference]]


def parse_row(row: Row, *, repetition: Repetition) -> ParsedRow:
    """Prompt, responses and verdicts of a row of any known shape.

    Args:
        row: The row, with the columns that are known here (see `known_row`).
        repetition: Whether the responses repeat the prompt's text (see `repetition_of`).

    Raises:
        InvalidDataError: the row has no known shape, or a prompt, text or verdict that cannot be used.

    """
    values = row.values
    refuse_doubtful(row, "prompt", *SIDES, "rejected", *ANSWER_COLUMNS)
    if "chosen" in values or "rejected" in values:
        return _parse_preference(row, repetition)
    if "prompt" not in values:
        raise _unknown(row, "has no `prompt`")
    bare = parse_prompt(values["prompt"], row.origin)
    prompt = with_conditions(bare, values, row.origin)
    responses, verdict = _parse_answers(row)
    return prompt, [replace(one, text=repetition.without_prompt(one.text, bare)) for one in responses], verdict


def _parse_answers(row: Row) -> tuple[list[RowResponse], list[RowPreference]]:
    """The responses of a row with a prompt of its own, and what it says of them."""
    values = row.values
    if "responses" in values:
        return _parse_list(values, row.origin), []
    if "response_a" in values and "response_b" in values:
        texts = [_response_text(values[name], f"{row.origin}, {name}") for name in SIDES]
        responses = _sides(texts, of_sides(values, SIDES, row.origin), row.origin)
        return responses, _verdict(values.get("preference"), row.origin)
    if any(name in values for name in TEXT_FIELDS):
        return [_response(_answer_fields(row), row.origin, Scores())], []
    raise _unknown(row, "has no responses")


def repetition_of(rows: list[Row]) -> Repetition:
    """Whether every response of a file is the whole text, prompt included, as some data sets and engines have it."""
    return repetition_in([(row, _asked(row), _texts(row)) for row in rows], "its responses")


def _asked(row: Row) -> Any:
    """The prompt of a row as it stands there, or the messages before a chosen one; nothing where there are none."""
    prompt, chosen = row.values.get("prompt"), row.values.get("chosen")
    return chosen[:-1] if prompt is None and isinstance(chosen, list) else prompt


def _texts(row: Row) -> list[Any]:
    """What the responses of a row hold, as it stands there; nothing where they hold nothing, or are of no known shape."""
    values = row.values
    pair = next((two for two in PAIRS if set(two) <= values.keys()), None)
    if pair == PAIRS[0] or (pair and "responses" not in values):
        return [values[name] for name in pair]
    if "responses" not in values:
        return [] if "chosen" in values else _held(_answer_fields(row))
    items = values["responses"] if isinstance(values["responses"], list) else []
    return [text for item in items for text in _held(_item_fields(item)) or [None]]


def _held(fields: Mapping[str, Any]) -> list[Any]:
    """What the text field of a response holds; nothing where there is none."""
    name = _text_field(fields)
    return [] if name is None else [fields[name]]


def _text_field(fields: Mapping[str, Any]) -> str | None:
    """The field that holds a response's text: the first that is filled, otherwise the first there; None without any."""
    there = [name for name in TEXT_FIELDS if name in fields]
    return next((name for name in there if fields[name] is not None), next(iter(there), None))


def _answer_fields(row: Row) -> dict[str, Any]:
    """The fields of the one response that a row has beside its prompt; `text` beside an answer is the whole example."""
    answer = answer_column(row.values, row.origin)
    others = {"prompt"} if answer is None else {"prompt", "text", *ANSWER_COLUMNS} - {answer}
    return {name: value for name, value in row.values.items() if name not in others}


def _item_fields(item: Any) -> Mapping[str, Any]:
    """The fields of one response of a list, which may be its text or message alone."""
    return item if isinstance(item, dict) and not is_message(item) else {"text": item}


def is_pair(row: Row) -> bool:
    """Whether the row holds two responses as a pair, and not a list of responses or a single one."""
    values = row.values
    named = "response_a" in values and "response_b" in values and "responses" not in values
    return "chosen" in values or "rejected" in values or named


def without_verdict_in_order(parsed: ParsedRow) -> ParsedRow:
    """The row with its two responses in the order of their texts, so that their places do not tell which was chosen."""
    prompt, responses, preferences = parsed
    if responses[0].text <= responses[1].text:
        return parsed
    turned = [
        RowPreference(
            index_a=1 - p.index_a, index_b=1 - p.index_b, preferred=None if p.preferred is None else 1 - p.preferred
        )
        for p in preferences
    ]
    return prompt, responses[::-1], turned


def _parse_list(values: Mapping[str, Any], origin: str) -> list[RowResponse]:
    items = [] if values["responses"] is None else values["responses"]
    if not isinstance(items, list):
        raise InvalidDataError(
            f"{origin}: `responses` is a list, not {excerpt(items)}",
            hint="give the data set as JSONL or parquet, whose cells can hold lists, or a row with a `response` for each",
        )
    found = []
    for number, (item, scores) in enumerate(zip(items, of_list(values, items, origin), strict=True), start=1):
        found.append(_response(_item_fields(item), f"{origin}, response {number}", scores))
    return found


def _sides(texts: Iterable[Any], scores: Iterable[Scores], origin: str) -> list[RowResponse]:
    return [_response({"text": text}, origin, found) for text, found in zip(texts, scores, strict=True)]


def _response(fields: Mapping[str, Any], origin: str, scores: Scores) -> RowResponse:
    """A response with the scores among its fields, and those that were found beside it."""
    text_field = _text_field(fields)
    if text_field is None:
        raise InvalidDataError(f"{origin} has no `text`", details=[_fields(fields)])
    text = _response_text(
        fields[text_field], f"{origin}, {text_field}" if isinstance(fields[text_field], str) else origin
    )
    finish_reason = fields.get("finish_reason")
    others = {name: value for name, value in fields.items() if name != text_field and name not in NO_SCORES}
    scores.read(others, origin)
    return RowResponse(
        text=text,
        scores=scores.numbers,
        finish_reason=finish_reason if finish_reason in ("stop", "length") else None,
        unread={name: value for name, value in scores.unread.items() if name not in scores.numbers},
    )


def scores_in(fields: Any) -> list[str]:
    """The names under which a response has a number."""
    if not isinstance(fields, Mapping):
        return []
    others = {*NO_SCORES, *TEXT_FIELDS, "prompt"}
    return [name for name, value in fields.items() if name not in others and as_number(value) is not None]


def _response_text(value: Any, origin: str, prompt: PromptText | None = None) -> str:
    """Text as it is, empty where nothing is there; a list of one message gives its content.

    So does one behind the messages of `prompt`.
    """
    if value is None or value == []:
        return ""
    if isinstance(value, str):
        require_text(value, origin)
        return value
    if is_message(value):
        value = [value]
    if isinstance(value, list):
        messages = parse_messages(value, origin)
        if len(messages) > 1 and prompt is not None:
            require_same_prompt(messages[:-1], prompt, origin)
            messages = messages[-1:]
        if len(messages) == 1 and messages[0]["role"] == "assistant":
            return messages[0]["content"]
        raise InvalidDataError(f"{origin}: a response in messages is one message of the assistant, not {len(messages)}")
    raise InvalidDataError(f"{origin}: a response is text, not {excerpt(value)}")


def _parse_preference(row: Row, repetition: Repetition) -> ParsedRow:
    values, origin = row.values, row.origin
    several = values.get("rejected")
    if isinstance(several, list) and several and all(isinstance(item, str) for item in several):
        raise InvalidDataError(
            f"{origin}: `rejected` holds {len(several)} texts, and a row has one", hint=to_single_rejected(row.path)
        )
    if "responses" in values and "rejected" not in values:
        raise InvalidDataError(
            f"{origin} has a `chosen` beside `responses`, and a chosen answer stands beside a rejected one",
            hint="leave the column `chosen` out, or give rows of `chosen` and `rejected`",
        )
    if "chosen" not in values or "rejected" not in values:
        raise InvalidDataError(f"{origin} has only one of `chosen` and `rejected`", details=[_fields(values)])
    verdict = [RowPreference(index_a=0, index_b=1, preferred=0)]
    if "prompt" not in values:
        if not isinstance(values["chosen"], list) and any(name in values for name in FOREIGN):
            raise _unknown(row, "has no `prompt`")
        bare, chosen, rejected = _implicit_prompt(values["chosen"], values["rejected"], origin)
    else:
        bare = parse_prompt(values["prompt"], origin)
        chosen, rejected = (_response_text(values[name], f"{origin}, {name}", bare) for name in ("chosen", "rejected"))
    chosen, rejected = (repetition.without_prompt(text, bare) for text in (chosen, rejected))
    prompt = with_conditions(bare, values, origin)
    return prompt, _sides((chosen, rejected), of_sides(values, ("chosen", "rejected"), origin), origin), verdict


def _implicit_prompt(chosen: Any, rejected: Any, origin: str) -> tuple[PromptText, str, str]:
    prompt = shared_prompt(chosen, rejected, origin)
    if isinstance(prompt, str):
        return prompt, chosen[len(prompt) :], rejected[len(prompt) :]
    return prompt, _response_text(chosen[-1:], origin), _response_text(rejected[-1:], origin)


def answer_without_order(row: Row) -> str | None:
    """The recorded answer about a pair that says which is better of neither, None where there is another or none."""
    verdict = plain_name(str(row.values.get("preference") or ""))
    return verdict if is_pair(row) and "chosen" not in row.values and verdict in NO_VERDICTS else None


def verdict_elsewhere(row: Row) -> str | None:
    """A column that probably says which response of a pair is better, where `preference` is not there to say it."""
    if "preference" in row.values or "chosen" in row.values or not is_pair(row):
        return None
    found = spellings(row.values, VERDICT_NAMES).values()
    return next((names[0] for names in found if not is_blank(row.values[names[0]])), None)


def _verdict(value: Any, origin: str) -> list[RowPreference]:
    verdict = plain_name(value) if isinstance(value, str) else value
    if verdict is None or (isinstance(verdict, str) and verdict in ("", *NO_VERDICTS)):
        return []
    if not isinstance(verdict, str) or verdict not in VERDICTS:
        raise InvalidDataError(f"{origin}: `preference` is a, b, tie or null, not {excerpt(value)}")
    return [RowPreference(index_a=0, index_b=1, preferred=VERDICTS[verdict])]


def _unknown(row: Row, what: str) -> InvalidDataError:
    hint = next((mend for name, mend in FOREIGN.items() if name in row.values), None)
    return InvalidDataError(f"{row.origin} {what}", details=[PAIR_NEEDS, _fields(row.values)], hint=hint)


def _fields(values: Mapping[str, Any]) -> str:
    return f"it has: {', '.join(repr(name) for name in list(values)[:20]) or 'nothing'}"
