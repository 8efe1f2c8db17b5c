"""Prompts from a file: one column of a table."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from activedpo_cli.base.columns import KNOWN, with_conditions
from activedpo_cli.base.conversations import UnusableRowError, parse_prompt, shared_prompt
from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.foreign_rows import known_row, without_arguments
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.records import PromptText
from activedpo_cli.base.tables import Row, read_table, refuse_doubtful
from activedpo_cli.prompts.base import SourcePrompt


def read_file(
    path: Path,
    column: str,
    *,
    split_column: str | None = None,
    skip_empty: bool = False,
    template_kwargs: Sequence[str] | None = None,
) -> Iterator[SourcePrompt]:
    """The prompts in `column` of a table, in file order; of preferences without one, the messages that both share.

    `split_column` names the column that says of each whether it is held out. `skip_empty` passes over prompts without text.
    `template_kwargs` is the setting of the run, and rows may not ask for other arguments of the chat template.

    Raises:
        InvalidDataError: the file cannot be read (see `read_table`), or a row has no usable prompt or split; names the row.

    """
    for row in read_table(path, (column, *filter(None, [split_column]), *KNOWN)):
        asked = without_arguments(known_row(row) if column == "prompt" else row, template_kwargs)
        try:
            prompt = _prompt(asked, column)
        except UnusableRowError:
            if skip_empty:
                continue
            raise
        yield SourcePrompt(prompt=prompt, origin=row.origin, split=_split(row, split_column))


def _prompt(row: Row, column: str) -> PromptText:
    values = row.values
    refuse_doubtful(row, column)
    if column in values:
        return with_conditions(parse_prompt(values[column], row.origin, column), values, row.origin, column)
    if column == "prompt" and type(values.get("chosen")) is type(values.get("rejected")) in (list, str):
        shared = shared_prompt(values["chosen"], values["rejected"], row.origin)
        return with_conditions(shared, values, row.origin)
    raise _no_column(row, column, "--prompt-column NAME")


def _split(row: Row, column: str | None) -> Literal["train", "eval"] | None:
    if column is None:
        return None
    if column not in row.values:
        raise _no_column(row, column, "--split-column NAME")
    match row.values[column]:
        case "train":
            return "train"
        case "eval":
            return "eval"
        case other:
            raise InvalidDataError(
                f"{row.origin}: `{column}` is {excerpt(other)}, neither `train` nor `eval`",
                hint="write `eval` for prompts that are only for evaluation, and `train` for all others",
            )


def _no_column(row: Row, column: str, hint: str) -> InvalidDataError:
    names = [str(name) for name in row.values]
    return InvalidDataError(
        f"{row.origin} has no field `{column}`" + did_you_mean(column, names),
        details=[f"it has: {', '.join(map(repr, names[:20]))}"],
        hint=hint,
    )
