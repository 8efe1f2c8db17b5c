"""What calls to a server have in common, whatever is asked: the key, what may be shown, and when to call again."""

import email.utils
import os
import random
import re
from collections.abc import Callable

from activedpo_cli.base.display import display_text, redacted_text
from activedpo_cli.base.errors import UsageError

LONGEST_WAIT = 3600.0
"""Seconds for which a server's wish to be left alone is granted; beyond, the command ends, and can be typed again."""
NOTED_WAIT = 10.0
"""Seconds of waiting from which it is said."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
TAKES_LATER = frozenset({408, 409, 425, 429})
"""HTTP statuses that say that the same call may be taken later, beside those of a server in trouble, 500 and above."""
EXCERPT = 300
_UNSENDABLE = re.compile(r"[^!-~]")
"""What can't stand in a header behind `Bearer`."""


def key_in(variable: str | None, setting: str) -> str | None:
    """The key in the environment variable that a setting names; raises UsageError where it is not set, or can't be sent."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(
            f"the variable `{variable}`, which {setting} names, is not set",
            hint=f"put the key there with `export {variable}=…`, or `--set {setting}=null`",
        )
    if _UNSENDABLE.search(key):  # a library would show it in an error of its own, spelled in another way
        raise UsageError(
            f"the variable `{variable}` holds a key with a blank, a line break or a letter beyond ASCII in it",
            hint=f"put the key alone there, on one line: `export {variable}=…`",
        )
    return key


def without_key(text: str, key: str | None) -> str:
    """The text without the key, which a server may repeat in an error."""
    return text.replace(key, "***") if key else text


def harmless(text: str, key: str | None) -> str:
    """What a server says, short, without the key, and safe to show."""
    shown = display_text(redacted_text(without_key(text, key)))
    return shown if len(shown) <= EXCERPT else shown[:EXCERPT] + "…"


def growing_pause(failures: int) -> float:
    """Seconds before a call is made again, up to double by chance, so that several callers part."""
    return min(FIRST_PAUSE * 2**failures, LONGEST_PAUSE) * (1 + random.random())


def seconds_asked_for(retry_after: str | None, clock: Callable[[], float]) -> float | None:
    """The seconds that a header `Retry-After` means: a number, or a date; None where it is neither."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after)) if float(retry_after) < float("inf") else None
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - clock())
    except (TypeError, ValueError, OverflowError):
        return None
