"""What somebody may have meant who typed a name that does not exist, said in the same words everywhere."""

import difflib
from collections.abc import Iterable


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """` — did you mean …?` with the known name that is nearest; empty where none is near."""
    return asking(nearest(typed, known))


def nearest(typed: str, known: Iterable[str]) -> str | None:
    """The known name that is nearest, letter case aside unless two differ in nothing else; None where none is near."""
    names = list(known)
    if close := difflib.get_close_matches(typed, names, n=1):
        return close[0]
    in_small = {name.lower(): name for name in names}
    close = difflib.get_close_matches(typed.lower(), list(in_small), n=1)
    return in_small[close[0]] if close and len(in_small) == len(names) else None


def asking(name: str | None) -> str:
    """The same with a name that is found otherwise; empty without one."""
    return f" — did you mean `{name}`?" if name else ""
