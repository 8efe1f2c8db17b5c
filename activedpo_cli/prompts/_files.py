"""Prompts from a file: one column of a table."""

import difflib
from collections.abc import Iterator
from pathlib import Path

from activedpo_cli.errors import InvalidDataError
from activedpo_cli.prompts.base import SourcePrompt
from activedpo_cli.records import PromptText
from activedpo_cli.tables import EmptyPromptError, Row, parse_prompt, parse_shared_messages, read_table


def read_file(path: Path, column: str, *, skip_empty: bool = False) -> Iterator[SourcePrompt]:
    """The prompts in `column` of a table, in file order; of preferences without one, the messages that both share.

    `skip_empty` passes over prompts without text.

    Raises:
        InvalidDataError: the file cannot be read (see `read_table`), or a row has no usable prompt; names the row.

    """
    for row in read_table(path):
        try:
            prompt = _prompt(row, column)
        except EmptyPromptError:
            if skip_empty:
                continue
            raise
        yield SourcePrompt(prompt=prompt, origin=row.origin)


def _prompt(row: Row, column: str) -> PromptText:
    values = row.values
    if column in values:
        return parse_prompt(values[column], row.origin)
    if column == "prompt" and isinstance(values.get("chosen"), list) and isinstance(values.get("rejected"), list):
        return parse_shared_messages(values["chosen"], values["rejected"], row.origin)
    raise _no_column(row, column)


def _no_column(row: Row, column: str) -> InvalidDataError:
    names = [str(name) for name in row.values]
    close = difflib.get_close_matches(column, names, n=1)
    return InvalidDataError(
        f"{row.origin} has no field `{column}`" + (f" — did you mean `{close[0]}`?" if close else ""),
        details=[f"it has: {', '.join(map(repr, names[:20]))}"],
        hint="--prompt-column NAME",
    )
