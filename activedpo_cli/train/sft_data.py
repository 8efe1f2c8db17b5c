"""The examples of supervised fine-tuning: rows of a file as texts, split by their prompts, and as tokens."""

import random
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.answer_columns import ANSWER_COLUMNS, answer_column
from activedpo_cli.base.columns import require_text, with_conditions
from activedpo_cli.base.conversations import (
    ANSWER,
    FIRST_TURN,
    EmptyPromptError,
    parse_messages,
    parse_prompt,
    require_same_prompt,
)
from activedpo_cli.base.conversions import to_best, to_chosen
from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError, naming
from activedpo_cli.base.foreign_rows import known_rows
from activedpo_cli.base.records import PromptText
from activedpo_cli.base.repetition import Repetition, repetition_in
from activedpo_cli.base.tables import Row, read_table, refuse_doubtful
from activedpo_cli.generate.backends._recorded import unsaid
from activedpo_cli.generate.backends._recorded_rows import scores_in

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from activedpo_cli.models.encoding import AnswerEnd
    from activedpo_cli.train.sft_examples import SFTExample

CONVERSATIONS = ("conversations", "chosen")
SHAPES = "prompt and completion; prompt and chosen; messages that end with the assistant's; or text"


@dataclass(frozen=True)
class SFTRow:
    """A text to learn: the answer to a prompt, or as a whole where there is no prompt."""

    origin: str
    prompt: PromptText | None
    text: str


def read_sft_rows(
    path: Path, say: Callable[[str], None] = unsaid, *, cut: bool = True, template_kwargs: Sequence[str] | None = None
) -> list[SFTRow]:
    """The rows of a file, in order; a line of plain text is a text.

    Where every answer of the file begins with its prompt's text, that repetition is cut off and `say` is told; not with
    `cut` False. `template_kwargs` is the setting of the run, and rows may not ask for other arguments of the chat template;
    None where there is no run.

    Raises InvalidDataError that names the line for a row that is none of `SHAPES`.
    """
    if path.name.lower().removesuffix(".gz").endswith(".txt"):
        return [_text(row, row.values["prompt"]) for row in read_table(path)]
    rows = [(row, _parsed(row)) for row in known_rows(path, template_kwargs)]
    answers = [(row, learnt.prompt, [learnt.text]) for row, learnt in rows]
    repetition = repetition_in(answers if cut else [], "its answer")
    if said := repetition.in_words():
        say(said)
    return [_without_prompt(learnt, repetition) for _, learnt in rows]


def _without_prompt(learnt: SFTRow, repetition: Repetition) -> SFTRow:
    text = repetition.without_prompt(learnt.text, learnt.prompt)
    if not text.strip():
        raise InvalidDataError(
            f"{learnt.origin}: the answer holds its prompt alone", hint="remove this row; there is nothing to learn"
        )
    return replace(learnt, text=text)


@dataclass(frozen=True)
class Encoded:
    """Rows as tokens; `rows` are those of `examples`, `dropped` and `cut` say where those stood that were too long."""

    rows: list[SFTRow]
    examples: "list[SFTExample]"
    dropped: list[str]
    cut: list[str]

    def split(self, share: float, seed: int) -> "tuple[list[SFTExample], list[SFTExample]]":
        """Examples to learn and examples held out, each in file order; all rows of one prompt are on one side.

        A prompt is what the model reads, its tokens; a text without one is its own. At least one prompt is held out where
        `share` is not 0 and there are two; never all of them.
        """
        keys = [
            tuple(example.token_ids if row.prompt is None else example.token_ids[: example.context_tokens])
            for row, example in zip(self.rows, self.examples, strict=True)
        ]
        distinct = list(dict.fromkeys(keys))
        if share == 0 or len(distinct) < 2:
            return list(self.examples), []
        count = min(max(round(share * len(distinct)), 1), len(distinct) - 1)
        held = set(random.Random(seed).sample(distinct, count))
        pairs = list(zip(keys, self.examples, strict=True))
        return [row for key, row in pairs if key not in held], [row for key, row in pairs if key in held]


def encode_rows(
    rows: Sequence[SFTRow],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    rendering: Mapping[str, Any],
    end: "AnswerEnd | None",
    max_length: int | None,
    truncate: bool,
) -> Encoded:
    """Each row as the model reads it when it samples: the prompt, the text that continues it, and the end token.

    `rendering` is that of `prompt_rendering`.

    Cut rows have no end token, since they did not end; one whose prompt fills all places is dropped in any case.
    """
    encoded = Encoded([], [], [], [])
    for row in rows:
        context, token_ids = _token_ids(row, tokenizer, rendering, end)
        if max_length is not None and len(token_ids) > max_length:
            if not truncate or context >= max_length:
                encoded.dropped.append(row.origin)
                continue
            encoded.cut.append(row.origin)
            token_ids = token_ids[:max_length]
        encoded.rows.append(row)
        encoded.examples.append(_example(row, context, token_ids))
    return encoded


def _token_ids(
    row: SFTRow, tokenizer: "PreTrainedTokenizerBase", rendering: Mapping[str, Any], end: "AnswerEnd | None"
) -> tuple[int, list[int]]:
    """How many tokens at the start are read and not learnt, and all tokens.

    For a plain text that is its first token, which nothing precedes.
    """
    from activedpo_cli.models.encoding import encode_prompt, encode_response_text, encode_text, ended
    from activedpo_cli.models.vocabulary import require_readable

    require_readable(tokenizer, [] if end is None else [end.token_id], "the end of an answer")

    def with_end(token_ids: list[int]) -> list[int]:
        return token_ids if end is None else ended(tokenizer, token_ids, end)

    with naming(row.origin):
        if row.prompt is None:
            return 1, with_end(encode_text(tokenizer, row.text))
        prompt = encode_prompt(tokenizer, row.prompt, **rendering)
        return len(prompt), prompt + with_end(encode_response_text(tokenizer, row.text))


def _example(row: SFTRow, context: int, token_ids: list[int]) -> "SFTExample":
    from activedpo_cli.train.sft_examples import SFTExample

    if len(token_ids) <= context:
        raise InvalidDataError(f"{row.origin} has no token that could be learnt", hint="remove this row")
    return SFTExample(origin=row.origin, token_ids=array("i", token_ids), context_tokens=context)


def _first_answer(row: Row) -> tuple[str | None, Any]:
    """The column that is learnt and what it holds; a message of its own is a list of one."""
    name = answer_column(row.values, row.origin)
    value = row.values[name] if name else None
    return name, [value] if isinstance(value, dict) else value


def _parsed(row: Row) -> SFTRow:
    values = {name: value for name, value in row.values.items() if value is not None}
    refuse_doubtful(row, "prompt", *ANSWER_COLUMNS)
    answer, value = _first_answer(row)
    if "prompt" in values:
        if answer is None and (empty := next((name for name in ANSWER_COLUMNS if name in row.values), None)):
            _filled(row, "", empty)
        if answer is None or (answer == "response" and scores_in(values)):
            raise _unknown(row, values, "has a `prompt`, and neither `completion` nor `chosen`")
        learnt = _answer(row, parse_prompt(values["prompt"], row.origin), value, answer)
        return _conditioned(row, learnt)
    if "messages" in values:
        return _conditioned(row, _conversation(row, values["messages"], "messages"))
    for name in CONVERSATIONS:
        if isinstance(values.get(name), list):
            return _conditioned(row, _conversation(row, values[name], name))
    if isinstance(value, str) and value.startswith(FIRST_TURN) and FIRST_TURN not in value.rpartition(ANSWER)[2]:
        before, mark, last = value.rpartition(ANSWER)
        return _conditioned(row, SFTRow(row.origin, before + mark, _filled(row, last, str(answer))))
    if "text" in values:
        return _text(row, values["text"])
    if answer and "prompt" in row.values:
        raise EmptyPromptError(row.origin)
    raise _unknown(row, values, f"has a `{answer}` and no `prompt`" if answer else "is no example")


def _conditioned(row: Row, learnt: SFTRow) -> SFTRow:
    assert learnt.prompt is not None
    return replace(learnt, prompt=with_conditions(learnt.prompt, row.values, row.origin))


def _answer(row: Row, prompt: PromptText, value: Any, name: str) -> SFTRow:
    if isinstance(value, list):
        whole = _conversation(row, value if len(value) > 1 else [{"role": "user", "content": "-"}, *value], name)
        if len(value) > 1:
            assert isinstance(whole.prompt, list)
            require_same_prompt(whole.prompt, prompt, f"{row.origin}, {name}")
        return SFTRow(row.origin, prompt, whole.text)
    return SFTRow(row.origin, prompt, _filled(row, value, name))


def _conversation(row: Row, value: Any, name: str) -> SFTRow:
    """The last message is learnt, which must be the assistant's; those before it are the prompt."""
    if not isinstance(value, list):
        raise InvalidDataError(f"{row.origin}: `{name}` is a list of messages, not {excerpt(value)}")
    messages = parse_messages(value, row.origin)
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise InvalidDataError(
            f"{row.origin}: `{name}` must end with a message of the assistant, after at least one other",
            hint="the last message is what is learnt, and those before it are its prompt",
        )
    return SFTRow(row.origin, messages[:-1], _filled(row, messages[-1]["content"], name))


def _text(row: Row, value: Any) -> SFTRow:
    return SFTRow(row.origin, None, _filled(row, value, "text"))


def _filled(row: Row, value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidDataError(f"{row.origin}: `{name}` must be text, not {excerpt(value)}")
    if not value.strip():
        raise InvalidDataError(f"{row.origin}: `{name}` is empty", hint="remove this row; there is nothing to learn")
    require_text(value, f"{row.origin}, {name}")
    return value


def _unknown(row: Row, values: dict[str, Any], what: str) -> InvalidDataError:
    names = ", ".join(repr(str(name)) for name in list(values)[:20])
    details, hint = [f"it has: {names}"], f"a row has {SHAPES}"
    if command := _conversion(row, values):
        details += [hint, command[0]]
        hint = command[1]
    return InvalidDataError(f"{row.origin} {what}", details=details, hint=hint)


def _conversion(row: Row, values: dict[str, Any]) -> tuple[str, str] | None:
    """What a command makes of rows that hold several answers or scores, and the command."""
    if "response_a" in values and "preference" in values:
        return "the command takes the preferred response of each row:", to_chosen(row.path)
    answers = values.get("responses")
    scores = scores_in(answers[0] if isinstance(answers, list) and answers else values)
    if "responses" in values or "response" in values:
        score = scores[0] if scores else "NAME"
        return f"the command takes the response with the largest `{score}` to each prompt:", to_best(row.path, score)
    return None
