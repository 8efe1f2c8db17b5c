"""Tables that people filled in: a row is a pair, and says itself what was answered and by whom."""

from collections.abc import Iterable, Iterator

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.tables import Row as TableRow
from activedpo_cli.label.formats.base import REQUIRED, FoundAnswer


def answers_of_table(table: Iterable[TableRow]) -> Iterator[FoundAnswer]:
    """The rows as they stand; raises InvalidDataError where one lacks a column that joins it to its pair."""
    for row in table:
        missing = [column for column in REQUIRED if column not in row.values]
        if missing:
            raise InvalidDataError(
                f"{row.origin} lacks {', '.join(f'`{column}`' for column in missing)}",
                details=[f"columns there: {', '.join(row.values)}"],
            )
        yield FoundAnswer(row.line, f"line {row.line}", row.values)
