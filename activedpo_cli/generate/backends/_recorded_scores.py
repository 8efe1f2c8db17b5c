"""The numbers that came with responses: beside the text of each, within objects, in lists, or in a column for each side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from activedpo_cli.base.column_names import plain_name
from activedpo_cli.base.columns import KNOWN, is_blank, is_message
from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.table_numbers import as_number

DEEPEST, MOST_NESTED = 3, 64
"""How deep objects are searched for numbers, and how many numbers one of them may hold: more are no scores."""


@dataclass
class Scores:
    """The numbers of one response by their names, and of each value that is there and none: where it is, and what."""

    numbers: dict[str, float] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)

    def read(self, fields: Mapping[str, Any], origin: str) -> None:
        """Take in named values; the numbers of an object go by its name, a point and their own."""
        for name, value in fields.items():
            if is_blank(value):
                continue
            nested = dict(_nested(value, name, DEEPEST)) if isinstance(value, Mapping) else {name: value}
            read = {inner: as_number(part) for inner, part in nested.items()}
            numbers = {inner: number for inner, number in read.items() if number is not None}
            if not numbers or len(numbers) > MOST_NESTED:
                self.unread[name] = f"{origin}: {excerpt(value)}"
            for inner, part in nested.items() if len(nested) <= MOST_NESTED else ():
                if inner not in numbers and not is_blank(part):
                    self.unread.setdefault(inner, f"{origin}: {excerpt(part)}")
            for inner, number in numbers.items() if len(numbers) <= MOST_NESTED else ():
                if self.numbers.setdefault(inner, number) != number:
                    raise InvalidDataError(
                        f"{origin}: `{inner}` is {number:g} and {self.numbers[inner]:g} for one response",
                        hint="remove or rename one of the two",
                    )


def _nested(value: Mapping[str, Any], name: str, depth: int) -> Iterator[tuple[str, Any]]:
    """What an object holds, and the objects in it, by their names with points between."""
    for inner, part in value.items():
        if isinstance(part, Mapping) and depth > 1:
            yield from _nested(part, f"{name}.{inner}", depth - 1)
        else:
            yield f"{name}.{inner}", part


def of_list(values: Mapping[str, Any], items: Sequence[Any], origin: str) -> list[Scores]:
    """The scores of each response in a list, from lists beside it that have as many places.

    Lists of numbers of another length are `unread`. So is a number, or an object of numbers, that stands once for all
    responses, unless they have their own of that name.
    """
    found = [Scores() for _ in items]
    own = {name for item in items if isinstance(item, Mapping) for name in item}
    lone = {
        name: f"{origin}: {excerpt(value)} stands once beside {len(items)} responses"
        for name, value in values.items()
        if name not in KNOWN and name not in own and _is_lone(value)
    }
    for scores in found:
        scores.unread |= lone
    for name, parts in _lists(values):
        if len(parts) == len(items):
            for number, (scores, part) in enumerate(zip(found, parts, strict=True), start=1):
                scores.read({name: part}, f"{origin}, {name} {number}")
        else:
            s = "" if len(parts) == 1 else "s"
            for scores in found:
                scores.unread[name] = f"{origin}: {len(parts)} value{s} for {len(items)} responses"
    return found


def unread_lists(values: Mapping[str, Any], count: int) -> list[str]:
    """The columns whose lists of numbers have another length than the list of `count` responses beside them."""
    return [name for name, parts in _lists(values) if len(parts) != count]


def of_sides(values: Mapping[str, Any], sides: tuple[str, str], origin: str) -> list[Scores]:
    """The scores of the two responses of a pair, from columns such as `score_chosen` and `score_rejected`.

    The score is called as both columns are without the name of their side.
    """
    found = [Scores(), Scores()]
    stems = [
        {stem: (name, value) for name, value in values.items() if name not in KNOWN and (stem := _stem(name, side))}
        for side in sides
    ]
    for stem in stems[0].keys() & stems[1].keys():
        parts = [Scores(), Scores()]
        for scores, (name, value) in zip(parts, (side[stem] for side in stems), strict=True):
            scores.read({stem: value}, f"{origin}, {name}")
        if any(scores.numbers for scores in parts):
            for scores, part in zip(found, parts, strict=True):
                scores.numbers |= part.numbers
                scores.unread |= part.unread
    return found


@lru_cache(maxsize=1024)
def _stem(name: str, side: str) -> str:
    """What a column is called without the side that it belongs to, as `rating` in `chosen-rating`; empty without a side."""
    words, of_side = plain_name(name).split("_"), side.split("_")
    for ending in (of_side, of_side[-1:]):
        if words[-len(ending) :] == ending:
            return "_".join(words[: -len(ending)])
    return "_".join(words[len(of_side) :]) if words[: len(of_side)] == of_side else ""


def _is_lone(value: Any) -> bool:
    """Whether a value is a number, or an object of numbers of which none belongs to a certain response."""
    parts = list(value.values()) if isinstance(value, Mapping) else [value]
    return any(as_number(part) is not None for part in parts)


def _lists(values: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """The columns, and the parts of objects in columns, that are lists of what may be scores."""
    for name, value in values.items():
        parts = value if isinstance(value, Mapping) else {}
        if name not in KNOWN and _may_be_scores(value):
            yield name, value
        elif name not in KNOWN:
            yield from ((f"{name}.{inner}", part) for inner, part in parts.items() if _may_be_scores(part))


def _may_be_scores(value: Any) -> bool:
    """Whether a list holds numbers or objects with numbers, and besides only places without anything."""
    if not isinstance(value, list):
        return False
    filled = [part for part in value if not is_blank(part)]
    return bool(filled) and all(
        as_number(part) is not None
        or (
            isinstance(part, Mapping)
            and not is_message(part)
            and any(as_number(inner) is not None for inner in part.values())
        )
        for part in filled
    )
