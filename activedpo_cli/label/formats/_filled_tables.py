"""Tables that people filled in: a row is a pair, and says itself what was answered and by whom."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.tables import Row as TableRow
from activedpo_cli.label.formats.base import REQUIRED, FoundAnswer

LEFT_EMPTY = ("preference", "annotator", "seconds", "notes")
"""Columns in which a person may leave a cell empty."""


def answers_of_table(table: Iterable[TableRow]) -> Iterator[FoundAnswer]:
    """The rows as they stand; raises InvalidDataError where one lacks a column that joins it to its pair."""
    for row in table:
        missing = [column for column in REQUIRED if column not in row.values]
        if missing:
            raise InvalidDataError(
                f"{row.origin} lacks {', '.join(f'`{column}`' for column in missing)}",
                details=[f"columns there: {', '.join(row.values)}"],
            )
        yield FoundAnswer(row.line, f"line {row.line}", _without_nan(row.values))


def _without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """The row with nothing where pandas has put NaN for it, which says nothing of these columns in any other way."""
    empty = {name for name in LEFT_EMPTY if isinstance(value := values.get(name), float) and math.isnan(value)}
    return {name: None if name in empty else value for name, value in values.items()}
