"""The words of a command as they were typed, and what is kept of them where a hint shows the command again."""

from collections.abc import Collection, Iterator, Sequence

SPELLED_OUT = frozenset({"--run", "--iteration"})
"""Options that every shown command of a stage has of its own."""
FOR_ONCE = frozenset({"--export", "--import", "--format", "--map"})
"""Options that ask for one act, or say how it is done; it is not asked for again."""
FLAGS_FOR_ONCE = frozenset({"--force", "--accept-partial", "--rebuild", "--ask-again"})
"""The same of those that take no value."""
ASSIGNING = "--set"


def repeated(words: Sequence[str], instead: Collection[str] = ()) -> list[str]:
    """The words that a shown command repeats: all but those that it spells out itself, or that were for once.

    Args:
        words: What was typed after the name of a stage: options, some with a value.
        instead: Options that take a value and that the shown command gives another; `--set` of the same setting is left
            out too.

    """
    dropped = SPELLED_OUT | FOR_ONCE | frozenset(instead)
    return [
        word
        for option in _options(words, dropped | {ASSIGNING})
        if option[0].partition("=")[0] not in dropped
        and option[0] not in FLAGS_FOR_ONCE
        and not (option[0].partition("=")[0] == ASSIGNING and _flag_of(option) in dropped)
        for word in option
    ]


def _options(words: Sequence[str], with_value: Collection[str]) -> Iterator[list[str]]:
    """Each word, those of `with_value` with the value that follows them."""
    rest = iter(words)
    for word in rest:
        yield [word, *([next(rest, "")] if word in with_value else [])]


def _flag_of(assignment: Sequence[str]) -> str:
    """`--budget` of `--set select.budget=5`."""
    text = assignment[1] if len(assignment) > 1 else assignment[0].partition("=")[2]
    return "--" + text.partition("=")[0].rpartition(".")[2].replace("_", "-")
