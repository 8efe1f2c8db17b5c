"""What somebody may have meant who typed a name that does not exist, said in the same words everywhere."""

import difflib
from collections.abc import Iterable


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """` — did you mean …?` with the known name that is nearest; empty where none is near."""
    close = difflib.get_close_matches(typed, list(known), n=1)
    return asking(close[0]) if close else ""


def asking(name: str | None) -> str:
    """The same with a name that is found otherwise; empty without one."""
    return f" — did you mean `{name}`?" if name else ""
