"""JSON that people bring: a value on a line, or values one after the other, each refused with its place."""

import json
import re
from collections.abc import Iterator
from typing import Any

from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError

NO_SPACE = re.compile(r"[^ \t\r\n]")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def json_values(text: str, name: str, first_line: int) -> Iterator[tuple[int, Any]]:
    """The values of a text, one after the other, with the lines on which they begin.

    Raises InvalidDataError that names `name` and the line.
    """
    place, line = 0, first_line
    while rest := NO_SPACE.search(text, place):
        line += text.count("\n", place, rest.start())
        place = rest.start()
        value, end = _parse_json_at(text, place, name, line)
        yield line, value
        line += text.count("\n", place, end)
        place = end


def json_of_line(text: str, origin: str) -> Any:
    """The only value of a line; raises InvalidDataError, naming `origin`."""
    value, end = _parse_json_at(text, len(text) - len(text.lstrip(" \t\r")), origin, None)
    rest = text[end:].strip(" \t\r\n")
    if rest:
        at = text.index(rest, end)
        raise _no_json(text, at, f"{origin}, column {at + 1}", "Extra data")
    return value


def _parse_json_at(text: str, start: int, origin: str, line: int | None) -> tuple[Any, int]:
    """The value that begins at `start` and where it ends; `line` is the line of `start`, None where `origin` names it."""
    try:
        value, end = DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        column = error.pos - text.rfind("\n", 0, error.pos)
        lines = "" if line is None else f" line {line + text.count(chr(10), start, error.pos)}"
        raise _no_json(text, error.pos, f"{origin}{lines}, column {column}", error.msg) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits; thousands of nested lists
        where = "" if line is None else f" line {line}"
        raise InvalidDataError(f"{origin}{where} is JSON that cannot be read: {error}") from error
    return (_without_lone_surrogates(value) if "\\u" in text[start:end] else value), end


def _no_json(text: str, at: int, place: str, what: str) -> InvalidDataError:
    around = text[max(0, at - 20) : at + 20].strip("\r\n")
    return InvalidDataError(f"{place} is not JSON: {what}", details=[f"near {around!r}"])


def with_each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; raises ValueError where a name repeats, whose first value would be lost."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        repeated = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"it names {excerpt(repeated)} twice")
    return fields


DECODER = json.JSONDecoder(object_pairs_hook=with_each_name_once)


def _without_lone_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_lone_surrogates(key): _without_lone_surrogates(item) for key, item in value.items()}
    return value
