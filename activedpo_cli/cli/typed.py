"""The command that is being carried out, as it was typed, without its secrets."""

from collections.abc import Sequence
from contextvars import ContextVar

_WORDS: ContextVar[tuple[str, ...]] = ContextVar("words", default=())


def remember(command: str, words: Sequence[str]) -> None:
    """Take down the name of the subcommand and the words behind it."""
    _WORDS.set((command, *words))


def typed_options() -> tuple[str, ...]:
    """The words behind the name of the subcommand."""
    from activedpo_cli.base.display import redacted

    return tuple(redacted(_WORDS.get()[1:]))


def typed_command() -> list[str]:
    """The whole command line."""
    from activedpo_cli.base.display import redacted

    return redacted(["activedpo", *_WORDS.get()])
