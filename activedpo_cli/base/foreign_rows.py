"""Rows as other data sets have them, brought to the columns that are read here where that leaves no doubt."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from activedpo_cli.base.column_names import spellings, with_known_names
from activedpo_cli.base.columns import KNOWN, is_blank
from activedpo_cli.base.conversations import FIRST_TURN
from activedpo_cli.base.conversions import to_one_prompt
from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.table_numbers import as_number, mend_of_number
from activedpo_cli.base.tables import Row, read_table
from activedpo_cli.base.template_kwargs import without_own_arguments

Values = Mapping[str, Any]
PROMPTS = frozenset({"instruction", "question", "query", "input", "conversations"})
"""What a prompt is called elsewhere, beside answers that say that it is one."""
WHOLE = frozenset({"text", "messages"})
"""Columns that hold an example as a whole, beside which others only repeat its parts."""
PAIRS = (frozenset({"chosen", "rejected"}), frozenset({"response_a", "response_b"}))
ONE_TEXT = frozenset({"response", "completion"}).union(*PAIRS)
ANSWERS = ONE_TEXT | {"responses"}


def known_rows(path: Path, template_kwargs: Sequence[str] | None) -> Iterator[Row]:
    """The rows of a file with the columns that are read here, and without arguments of their own for the chat template.

    Raises InvalidDataError as `read_table`, `known_row` and `without_own_arguments` do.
    """
    for row in read_table(path, KNOWN):
        yield without_arguments(known_row(row), template_kwargs)


def without_arguments(row: Row, template_kwargs: Sequence[str] | None) -> Row:
    """The row without arguments of its own for the chat template, which are those of the run (`without_own_arguments`)."""
    return replace(row, values=without_own_arguments(row.values, row.origin, template_kwargs))


def known_row(row: Row) -> Row:
    """The row with the columns that are read here, or as it is.

    Raises InvalidDataError, naming the row, where its columns are known and what is in them is not.
    """
    values = dict(row.values)
    if values.get("prompt") is None and _holds_prompt(values.get("chosen")):
        values.pop("prompt", None)
    for shape in SHAPES:
        found = spellings(values, shape.columns)
        if shape.columns <= found.keys() and not any(values.get(name) is not None for name in shape.instead):
            values = with_known_names(values, found, row.origin)
            made = shape.convert(values, row.origin)
            values = {name: value for name, value in values.items() if name not in shape.columns} | made
    values = _without_empty_shapes(_with_prompt({name: _bare(name, value, row) for name, value in values.items()}, row))
    return row if values == row.values else replace(row, values=values)


def _holds_prompt(chosen: Any) -> bool:
    """Whether an answer is a conversation, prompt included, whose column for the prompt only other rows need."""
    return (isinstance(chosen, list) and len(chosen) > 1) or (isinstance(chosen, str) and chosen.startswith(FIRST_TURN))


def _without_empty_shapes(values: dict[str, Any]) -> dict[str, Any]:
    """The row without the answers of other shapes that hold nothing: Arrow gives every row the columns of all others.

    Where no answer holds anything, all stay, and are as empty as empty texts.
    """
    filled = {name for name in ANSWERS & values.keys() if values[name] is not None}
    if filled == ANSWERS & values.keys() or not filled:
        return values
    needed = {name for pair in PAIRS if filled & pair for name in pair}
    return {name: value for name, value in values.items() if name not in ANSWERS or name in filled | needed}


def _bare(name: str, value: Any, row: Row) -> Any:
    """A list of one text where a row has one text, as its text."""
    is_texts = name in ONE_TEXT and isinstance(value, list) and value and all(isinstance(item, str) for item in value)
    if not is_texts or (len(value) > 1 and name == "rejected"):
        return value
    if len(value) > 1:
        raise InvalidDataError(f"{row.origin}: `{name}` holds {len(value)} texts, and a row has one")
    return value[0]


def _with_prompt(values: dict[str, Any], row: Row) -> dict[str, Any]:
    """The only column that can be the prompt, where there is none of that name; not where the answers hold it."""
    if values.get("prompt") is not None or not ANSWERS & values.keys():
        return values
    whole = values.get("chosen")
    if (isinstance(whole, list) and len(whole) > 1) or ("chosen" not in values and "messages" in values):
        return values
    meant = spellings(values, PROMPTS)
    found = [column for columns in meant.values() for column in columns if not is_blank(values[column])]
    if set(found) == {"instruction", "input"} and all(is_blank(values.get(name)) for name in WHOLE):
        raise InvalidDataError(
            f"{row.origin}: `instruction` and `input` are both filled, and the prompt is made of both",
            details=["the command puts a blank line between the two, and none of Alpaca's own words around them:"],
            hint=to_one_prompt(row.path),
        )
    if len(found) != 1:
        return values
    others = {name: value for name, value in values.items() if name != "prompt"}
    return {"prompt" if name == found[0] else name: value for name, value in others.items()}


class Shape(NamedTuple):
    """Columns of a data set, the columns without which they are meant, and what is made of them."""

    columns: frozenset[str]
    instead: frozenset[str]
    convert: Callable[[Values, str], dict[str, Any]]


def _renamed(**names: str) -> Callable[[Values, str], dict[str, Any]]:
    return lambda values, origin: {new: values[old] for old, new in names.items()}


def _by_rank(values: Values, origin: str) -> dict[str, Any]:
    """Ranked answers; the best has rank 1, and a larger score is better."""
    answers = values["answers"]
    if not isinstance(answers, list) or not all(isinstance(item, dict) and "answer" in item for item in answers):
        raise InvalidDataError(f"{origin}: `answers` is a list of objects with `answer` and `rank`, as in Nectar")
    responses = []
    for number, item in enumerate(answers, start=1):
        others = {name: value for name, value in item.items() if name not in ("answer", "rank")}
        rank = item.get("rank")
        minus = {} if rank is None else {"minus_rank": -_number(rank, f"{origin}, answer {number}, rank")}
        responses.append({"text": item["answer"], **others, **minus})
    return {"prompt": values["prompt"], "responses": responses}


def _by_label(values: Values, origin: str) -> dict[str, Any]:
    """SHP: 1 says that A is preferred, 0 that B is."""
    label = _number(values["labels"], f"{origin}, labels")
    if label not in (0, 1):
        raise InvalidDataError(f"{origin}: `labels` is 1 for A or 0 for B, not {excerpt(values['labels'])}")
    return {
        "prompt": values["history"],
        "response_a": values["human_ref_A"],
        "response_b": values["human_ref_B"],
        "preference": "a" if label == 1 else "b",
    }


def _by_scores(values: Values, origin: str) -> dict[str, Any]:
    """WebGPT's comparisons: the answer with the larger score is better."""
    question = values["question"]
    first, second = (_number(values[name], f"{origin}, {name}") for name in ("score_0", "score_1"))
    return {
        "prompt": question.get("full_text") if isinstance(question, dict) else question,
        "response_a": values["answer_0"],
        "response_b": values["answer_1"],
        "preference": "tie" if first == second else "a" if first > second else "b",
    }


def _by_output(values: Values, origin: str) -> dict[str, Any]:
    """The file that OpenAI fine-tunes on preferences from."""
    given = values["input"]
    if not isinstance(given, dict) or "messages" not in given:
        raise InvalidDataError(f"{origin}: `input` is an object with `messages`, not {excerpt(given)}")
    tools = {} if is_blank(given.get("tools")) else {"tools": given["tools"]}
    sides = {"chosen": values["preferred_output"], "rejected": values["non_preferred_output"]}
    return {"prompt": given["messages"], **sides, **tools}


def _by_strength(prompt: str, first: str, second: str, strength: str) -> Callable[[Values, str], dict[str, Any]]:
    """HelpSteer: below 0 the first response is better, above 0 the second."""

    def convert(values: Values, origin: str) -> dict[str, Any]:
        number = _number(values[strength], f"{origin}, {strength}")
        verdict = "tie" if number == 0 else "a" if number < 0 else "b"
        sides = {"response_a": values[first], "response_b": values[second]}
        return {"prompt": values[prompt], **sides, "preference": verdict}

    return convert


def _number(value: Any, where: str) -> float:
    number = as_number(value)
    if number is None:
        raise InvalidDataError(f"{where}: {excerpt(value)} is no number{mend_of_number(value)}")
    return number


SHAPES = (
    Shape(frozenset({"prompt", "answers"}), frozenset({"responses"}), _by_rank),
    Shape(frozenset({"history", "human_ref_A", "human_ref_B", "labels"}), frozenset({"prompt"}), _by_label),
    Shape(
        frozenset({"context", "response1", "response2", "overall_preference"}),
        frozenset({"prompt"}),
        _by_strength("context", "response1", "response2", "overall_preference"),
    ),
    Shape(
        frozenset({"prompt", "response_1", "response_2", "preference_strength"}),
        frozenset({"response_a", "response_b"}),
        _by_strength("prompt", "response_1", "response_2", "preference_strength"),
    ),
    Shape(frozenset({"question", "answer_0", "answer_1", "score_0", "score_1"}), frozenset({"prompt"}), _by_scores),
    Shape(
        frozenset({"input", "preferred_output", "non_preferred_output"}), frozenset({"prompt", "chosen"}), _by_output
    ),
    Shape(
        frozenset({"instruction", "completions"}),
        frozenset({"prompt", "responses"}),
        _renamed(instruction="prompt", completions="responses"),
    ),
    Shape(
        frozenset({"chosen_response", "rejected_response"}),
        frozenset({"chosen", "rejected"}),
        _renamed(chosen_response="chosen", rejected_response="rejected"),
    ),
    Shape(frozenset({"output"}), ANSWERS | WHOLE, _renamed(output="completion")),
    Shape(
        frozenset({"question", "answer"}),
        ANSWERS | WHOLE | {"prompt"},
        _renamed(question="prompt", answer="completion"),
    ),
)
"""Nectar, SHP, HelpSteer3, HelpSteer2's preferences, WebGPT, OpenAI, UltraFeedback, older Argilla, Alpaca, and questions."""
