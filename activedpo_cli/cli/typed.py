"""The command that is being carried out, as it was typed, without its secrets."""

import sys
from collections.abc import Sequence
from contextvars import ContextVar

_WORDS: ContextVar[tuple[str, ...]] = ContextVar("words", default=())


def remember(words: Sequence[str]) -> None:
    """Take down the words behind the name of the subcommand."""
    _WORDS.set(tuple(words))


def typed_options() -> tuple[str, ...]:
    """The words behind the name of the subcommand."""
    from activedpo_cli.base.display import redacted

    return tuple(redacted(_WORDS.get()))


def typed_command() -> list[str]:
    """The whole command line of this process."""
    from activedpo_cli.base.display import redacted

    return redacted(["activedpo", *sys.argv[1:]])
