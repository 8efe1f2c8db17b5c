"""One rule for the names of columns: letter case, spaces, hyphens and underscores make no other column.

A name that is spelled as it is known always means itself, so that only other spellings are taken for it.
"""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from activedpo_cli.base.columns import is_blank
from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError

UNSEEN = " \t\r\n\v\f\xa0\u200b\u200e\u200f\u2060\ufeff"
"""What programs leave around a name and nobody sees: spaces, a byte-order mark, marks of no width."""
SEPARATORS = re.compile(r"[\s_-]+")


@lru_cache(maxsize=1024)
def plain_name(name: str) -> str:
    """A name in small letters, with one underscore for whatever separates its words."""
    return SEPARATORS.sub("_", bare_name(name).lower())


def bare_name(name: str) -> str:
    """A name without what nobody sees around it, nor the quotation marks that a byte-order mark made a part of it.

    Python's `csv` reads them so, of a file that begins with that mark and a quoted name, unless it is opened as `utf-8-sig`.
    """
    bare = name.strip(UNSEEN)
    is_quoted = name.startswith("\ufeff") and len(bare) > 2 and bare[0] == bare[-1] == '"'
    return bare[1:-1].strip(UNSEEN) if is_quoted else bare


def spellings(columns: Collection[str], names: Collection[str]) -> Mapping[str, list[str]]:
    """The columns that mean each of some names, by name; its own spelling first. Names that no column means are left out.

    `ResponseA` means `response_a` too, where no other name is spelled so but for what separates its words.
    """
    return _spellings(tuple(columns), tuple(names))


@lru_cache(maxsize=512)
def _spellings(columns: tuple[str, ...], names: tuple[str, ...]) -> Mapping[str, list[str]]:
    """The same for all rows of a file that have these columns."""
    by_words: dict[str, list[str]] = {}
    by_letters: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        by_words.setdefault(plain_name(name), []).append(name)
        by_letters.setdefault(_letters(name), []).append(name)
    found: dict[str, list[str]] = {name: [name] for name in names if name in columns}
    for column in columns:
        meant = by_words.get(plain_name(column)) or by_letters.get(_letters(column), [])
        if column not in found and len(meant) == 1:
            found.setdefault(meant[0], []).append(column)
    return found


def with_known_names(values: Mapping[str, Any], found: Mapping[str, list[str]], origin: str) -> dict[str, Any]:
    """A row whose columns go by the names that they mean, in their order; `found` is what `spellings` gives.

    Raises InvalidDataError, naming the row and the columns, where two columns of one meaning hold different things.
    """
    name_of: dict[str, str] = {}
    for name, columns in found.items():
        filled = [column for column in columns if not is_blank(values[column])]
        for other in filled[1:]:
            if values[other] != values[filled[0]]:
                raise InvalidDataError(
                    f"{origin}: {excerpt(filled[0])} and {excerpt(other)} are one column to every reader, and differ",
                    hint=f"rename or remove one of the two; the other is read as `{name}`",
                )
        name_of |= dict.fromkeys(columns, "") | {(filled or columns)[0]: name}
    return {name_of.get(column, column): value for column, value in values.items() if name_of.get(column) != ""}


def _letters(name: str) -> str:
    plain = plain_name(name)
    return plain[:1] + plain[1:].replace("_", "")
