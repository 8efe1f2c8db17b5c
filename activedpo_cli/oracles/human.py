"""People answer, one pair at a time, in the terminal or through an exchanged file.

The asking is done by `label/`; this module only says so to whoever looks for an oracle.
"""

from collections.abc import Sequence
from typing import NoReturn

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.records import RecordedPreference
from activedpo_cli.base.settings import LabelSettings

ASKS_PEOPLE = True
SCORES_TEXT = False


def build(
    argument: str | None, settings: LabelSettings, device: str, *, preferences: Sequence[RecordedPreference] = ()
) -> NoReturn:
    """Always raise UsageError: a person cannot be called like a function."""
    raise UsageError("the oracle `human` is asked pair by pair and cannot answer or score by itself")


def identity(argument: str | None, settings: LabelSettings) -> dict[str, str]:
    """Nothing: what people answer is recorded answer by answer."""
    return {}
