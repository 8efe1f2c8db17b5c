"""Prompts from a file: one column of a table."""

import difflib
from collections.abc import Iterator
from pathlib import Path

from activedpo_cli.errors import InvalidDataError
from activedpo_cli.prompts.base import SourcePrompt
from activedpo_cli.tables import Row, parse_prompt, read_table


def read_file(path: Path, column: str) -> Iterator[SourcePrompt]:
    """The prompts in `column` of a table, in file order.

    Raises:
        InvalidDataError: the file cannot be read (see `read_table`), or a row has no usable prompt; names the row.

    """
    for row in read_table(path):
        if column not in row.values:
            raise _no_column(row, column)
        yield SourcePrompt(prompt=parse_prompt(row.values[column], row.origin), origin=row.origin)


def _no_column(row: Row, column: str) -> InvalidDataError:
    names = [str(name) for name in row.values]
    close = difflib.get_close_matches(column, names, n=1)
    return InvalidDataError(
        f"{row.origin} has no field `{column}`" + (f" — did you mean `{close[0]}`?" if close else ""),
        details=[f"it has: {', '.join(map(repr, names[:20]))}"],
        hint="--prompt-column NAME",
    )
