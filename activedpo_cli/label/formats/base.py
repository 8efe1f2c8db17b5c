"""What every format has in common: rows that go out, and answers that come back.

A format is one module in this folder, or an entry point of the group `activedpo.formats`. Its file name is the value of
`label --format`, the first line of its docstring the help, and it has, at module level,

- `SUFFIX: str`: how the name of its file ends; empty where it fills a folder;
- `UNIT: str`: what the file is made of, as messages count it: `line`, `task`;
- `RETURN: str`: how the answers get from there into a file, said after an export;
- `render(rows, path, title) -> dict[Path, bytes]`: the files that ask about `rows`, which have the columns `COLUMNS`;
- `recognises(values) -> bool`: whether a row of a table is one of this format's own;
- `answers(table) -> Iterator[FoundAnswer]`: what the rows of a file that came back say, one for each person and pair; raises
  InvalidDataError where the file is no such file.

Texts go out as they are, never as HTML, and nothing goes out that could sway: no scores, no suggestions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.records import Outcome

OUTCOMES: dict[str, Outcome] = {"a": "chosen", "b": "chosen", "tie": "tie", "both_bad": "both_bad", "skip": "skip"}
"""What a preference may be, and the outcome that it is."""
REQUIRED = ("pair_id", "preference", "response_a_id", "response_b_id")
COLUMNS = (*REQUIRED, "prompt", "response_a", "response_b", "annotator", "seconds", "notes")

Row = Mapping[str, Any]
"""A pair by `COLUMNS`: which response is `a` was shuffled, and `preference` is one of `OUTCOMES`, or empty."""


@dataclass(frozen=True)
class FoundAnswer:
    """What one person said of one pair; a pair that waits for an answer is one without a preference.

    Attributes:
        number: Of the line or task, from 1.
        place: The same in words, for messages: `line 3`, `task 2, annotation 68045`.
        values: By `COLUMNS`; texts may be left out.
        when: When it was given, in seconds of any epoch; None where the file does not say.

    """

    number: int
    place: str
    values: Row
    when: float | None = None


def without_withdrawn_skips(found: Sequence[FoundAnswer]) -> Iterator[FoundAnswer]:
    """What was said; whoever skipped a pair, came back and answered has answered."""

    def key(one: FoundAnswer) -> str:
        return repr(
            (one.values["pair_id"], one.values["annotator"])
        )  # in a file with anything in it these may be lists

    answered = {key(one) for one in found if one.values["preference"] not in ("", "skip")}
    return (one for one in found if one.values["preference"] != "skip" or key(one) not in answered)


def part(value: Any, kind: type, what: str, origin: str) -> Any:
    """A part of a file that has to be of this kind; raises InvalidDataError, naming `origin`, where it is not."""
    if isinstance(value, kind):
        return value
    named = {"dict": "an object", "list": "a list", "str": "text"}[kind.__name__]
    raise InvalidDataError(f"{origin}: {what} is {excerpt(value)}, not {named}")
