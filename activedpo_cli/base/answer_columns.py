"""Which column of a row is its answer, for whatever reads rows with a prompt and one answer."""

from collections.abc import Mapping
from typing import Any

from activedpo_cli.base.errors import InvalidDataError

ANSWER_COLUMNS = ("completion", "chosen", "response")


def answer_column(values: Mapping[str, Any], origin: str) -> str | None:
    """The first of `ANSWER_COLUMNS` that is filled, None where none is; `text` beside one is the whole example.

    Raises InvalidDataError, naming the row and both columns, where two of them hold different answers.
    """
    found = [name for name in ANSWER_COLUMNS if values.get(name) is not None]
    for other in found[1:]:
        if values[other] != values[found[0]]:
            raise InvalidDataError(
                f"{origin}: `{found[0]}` and `{other}` hold different answers, and a row has one",
                hint=f"remove the column `{found[0]}` or `{other}`",
            )
    return found[0] if found else None
