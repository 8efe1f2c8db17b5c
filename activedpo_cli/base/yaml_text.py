"""YAML 1.2 as text: read, written in one line, changed with its comments kept; a key that repeats is refused.

ruamel.yaml does this. Where it is not installed, `plain_yaml` does most of it, so that features can be computed on a
machine that has only the libraries models need.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any

from activedpo_cli.base.errors import ActiveDPOError, UsageError

_INSTALL = "pip install ruamel.yaml"
LONGEST_TEXT = 2**20
MOST_VALUES = 100_000
DEEPEST = 50
LARGEST_BITS = 1024
"""Settings are far smaller; what is not would only take memory, also where it is short and its aliases spell it out."""


def read_yaml(text: str) -> Any:
    """What the text holds, in Python's own types.

    Raises UsageError where it is not YAML, a key repeats, or it is too long, too deep or too large for settings.
    """
    if len(text) > LONGEST_TEXT:
        raise UsageError(f"not valid YAML for settings: it is longer than {LONGEST_TEXT} characters")
    load, problem, hint = _reader()
    try:
        value = load(text)
        _check_size(value)
        return value
    except RecursionError as error:
        raise UsageError("not valid YAML for settings: it is nested too deeply") from error
    except (problem, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        # Beside its own errors a reader lets those of Python through: 2024-13-45 is no date, `!!bool maybe` no key.
        first, *others = str(error).splitlines() or [type(error).__name__]
        raise UsageError(f"not valid YAML: {first}", details=others, hint=hint) from error


def _check_size(value: Any) -> None:
    """Raise ValueError for what would be too large if it were written out, each alias in full."""
    count = 0
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if count > MOST_VALUES:
            raise ValueError(f"its aliases spell out more than {MOST_VALUES} values")
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        if isinstance(item, int) and item.bit_length() > LARGEST_BITS:
            raise ValueError("a number in it is too large")
        if isinstance(item, Mapping):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list | tuple | set):
            waiting += [(part, depth + 1) for part in item]


def one_line(key: str, value: Any) -> str:
    """`key: value`, lists and mappings included, in one line that can stand in a block or between braces."""
    if not _has_ruamel():
        from activedpo_cli.base.plain_yaml import dump_flow

        return dump_flow({key: value})[1:-1]
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump({key: value}, stream)
    return stream.getvalue().strip()[1:-1]  # the braces of the flow mapping


def changed_yaml(text: str, changes: Mapping[str, Any]) -> str:
    """The text with the values at dotted keys replaced or added; comments and order stay.

    Raises ActiveDPOError where ruamel.yaml is missing and the change is more than other values in the places of old
    ones, each in its line.
    """
    if not _has_ruamel():
        from activedpo_cli.base.plain_yaml import NotInPlaceError, replaced

        try:
            return replaced(text, changes)
        except NotInPlaceError as error:
            raise ActiveDPOError(
                f"this change of settings needs the package `ruamel.yaml`: {error}", hint=_INSTALL
            ) from error
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    document = yaml.load(text) or {}
    for key, value in changes.items():
        *path, leaf = key.split(".")
        target = document
        for part in path:
            target = target.setdefault(part, {})
        target[leaf] = _in_one_line(value)
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _in_one_line(value: Any) -> Any:
    from ruamel.yaml.comments import CommentedSeq

    if not isinstance(value, list):
        return value
    sequence = CommentedSeq(value)
    sequence.fa.set_flow_style()
    return sequence


def _reader() -> tuple[Callable[[str], Any], type[Exception], str | None]:
    """What reads YAML here, what it raises, and what helps where the text was right after all."""
    if _has_ruamel():
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        return YAML(typ="safe", pure=True).load, YAMLError, None
    from activedpo_cli.base import plain_yaml

    return plain_yaml.load, plain_yaml.YAMLError, _INSTALL


def _has_ruamel() -> bool:
    try:
        import ruamel.yaml  # noqa: F401
    except ImportError:
        return False
    return True
