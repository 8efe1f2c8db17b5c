"""YAML 1.2 as text: read, written in one line, and changed in place with its comments kept.

PyYAML does it, which is there wherever transformers is. By itself it reads YAML 1.1; here `no` and `on` are words, `1e-4` is
a number, and a key that repeats is refused.
"""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from functools import lru_cache
from itertools import pairwise
from typing import Any

import yaml
from yaml.composer import Composer, ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.resolver import Resolver

from activedpo_cli.base.errors import UsageError

try:
    from yaml.cyaml import CParser
except ImportError:  # this PyYAML came without libyaml
    CParser = None

LONGEST_TEXT = 2**20
MOST_VALUES = 100_000
MOST_WRITTEN = 20_000
DEEPEST = 50
LARGEST_BITS = 1024
"""Settings are far smaller than these limits. Beyond them a text only fills the memory, as a short one can by aliases."""

_BOOL, _INT, _FLOAT, _MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "merge"))
_MEANINGS = (  # tag, pattern, first characters; the first pattern that fits says what a scalar is
    (_BOOL, r"(?:true|True|TRUE|false|False|FALSE)", "tTfF"),
    (
        _FLOAT,
        r"""(?: [-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)? | [-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
        | [-+]?\.[0-9_]+(?:[eE][-+][0-9]+)? | [-+]?\.(?:inf|Inf|INF) | \.(?:nan|NaN|NAN))""",
        "-+0123456789.",
    ),
    (_INT, r"[-+]?(?:0b[01_]+ | 0o?[0-7_]+ | [0-9_]+ | 0x[0-9a-fA-F_]+)", "-+0123456789"),
)
_MEANING_BY_FIRST = {  # these in place of 1.1's
    first: [(tag, pattern) for tag, pattern in meanings if tag not in (_BOOL, _INT, _FLOAT)]
    for first, meanings in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in _MEANINGS:
    for _character in _first:
        _MEANING_BY_FIRST.setdefault(_character, []).append((_tag, re.compile(f"^{_pattern}$", re.X)))
_BASES = {"0b": 2, "0o": 8, "0x": 16}
_BYTE_ORDER_MARK = "\ufeff"
_BETWEEN_TOKENS = re.compile("[ ]*(?:#[^\0\r\n\x85\u2028\u2029]*)?")
_SIMPLE_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*(?:[./-][A-Za-z0-9_]+)*")
_WORD = r"-?[A-Za-z0-9_./+][A-Za-z0-9_./+-]*"
_FLOW = rf"\[(?:{_WORD}(?:, {_WORD})*)?\]|\{{\}}"
_QUOTED = r"'[\x20-\x26\x28-\x7e]*'|\"[\x20-\x21\x23-\x5b\x5d-\x7e]*\""
_KEY_AND_VALUE = rf"[A-Za-z_][A-Za-z0-9_.-]*:(?: +(?:{_WORD}(?:[: ][A-Za-z0-9_./+-]+)*|{_FLOW}|{_QUOTED}))?"
_COMMENT = r"#[\x20-\x7e\xa1-\u07ff\u2010-\u2027\u2030-\u2fff]*"
_SIMPLE_TEXT = re.compile(rf"(?: *(?:{_KEY_AND_VALUE}(?: +{_COMMENT})? *|{_COMMENT})?\n)*+")
"""Keys of words, values of one line and comments, as `config.yaml` has them: there PyYAML and libyaml see the same."""


def read_yaml(text: str) -> Any:
    """What the text holds, in Python's own types.

    Raises UsageError where it is not YAML, a key repeats, or it is too long, too deep or too large for settings.
    """
    if len(text) > LONGEST_TEXT:
        raise UsageError(f"not valid YAML for settings: it is longer than {LONGEST_TEXT} characters")
    return deepcopy(_read(text))


@lru_cache(maxsize=32)
def _read(text: str) -> Any:
    """What the text holds; the same `config.yaml` is asked for several times, and an experiment has one for each run."""
    try:
        node = _composed(text)
        if node is None:
            return None
        _check_size(node)  # before anything is built: merges take time, and aliases memory, by what they spell out
        value = _Loader("").construct_document(node)
        _check_numbers(value)
        return value
    except RecursionError as error:
        raise UsageError("not valid YAML for settings: it is nested too deeply") from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        # Beside its own errors the reader lets those of Python through: 2024-13-45 is no date, `!!bool maybe` no key.
        first, *others = str(error).splitlines() or [type(error).__name__]
        raise UsageError(f"not valid YAML: {first}", details=others) from error


def _composed(text: str) -> Any:
    """The nodes of a text, or None; a text is often read and changed next, so those of the last ones are kept.

    Who reads a text in which something is merged (`<<`, or a tag, `!!merge`) puts it into the nodes: they are not kept.
    """
    return _kept_nodes(text) if "<<" not in text and "!" not in text else _kept_nodes.__wrapped__(text)


@lru_cache(maxsize=32)
def _kept_nodes(text: str) -> Node | None:
    if CParser is not None and _SIMPLE_TEXT.fullmatch(text):
        with suppress(yaml.YAMLError):  # what is wrong is said below, in the words of one reader
            return yaml.compose(text, Loader=_QuickComposer)
    return yaml.compose(text, Loader=_Loader)  # a safe loader


def one_line(key: str, value: Any) -> str:
    """`key: value`, lists and mappings included, in one line of a block."""
    return f"{_written(key)}: {_written(value)}"


def changed_yaml(text: str, changes: Mapping[str, Any]) -> str:
    """The text with the values at dotted keys replaced or added; all else stays as it is written.

    Raises UsageError where the text has a layout in which that is not possible, such as a value that is an alias.
    """
    expected = read_yaml(text) or {}
    for key, value in changes.items():
        _put(expected, key.split("."), value)
    try:
        text = _with_values(text, changes)
        has_arrived = read_yaml(text) == expected
    except (UsageError, yaml.YAMLError):
        has_arrived = False
    if not has_arrived:
        raise UsageError(
            "the settings stand in a layout that only you can change", hint=f"write {', '.join(changes)} there yourself"
        )
    return text


def _with_values(text: str, changes: Mapping[str, Any]) -> str:
    """The text with all these values; keys that stand there already are found in one reading of it."""
    root = _composed(text)
    edits: list[tuple[int, int, str]] = []
    others: dict[str, Any] = {}
    for key, value in changes.items():
        name, node, is_in_flow, missing = _walked(root, key.split("."))
        if missing:
            others[key] = value
        else:
            edits.append(_replacement(text, name, node, _written(value, is_in_flow=is_in_flow)))
    edits.sort()
    if any(after[0] < before[1] for before, after in pairwise(edits)):
        edits, others = [], dict(changes)  # one holds another, or is the other by an alias: one change at a time
    for edit in reversed(edits):
        text = _edited(text, edit)
    for key, value in others.items():
        text = _with_value(text, key.split("."), value)
    return text


def _with_value(text: str, path: list[str], value: Any) -> str:
    key, node, is_in_flow, missing = _walked(_composed(text), path)
    if missing:
        return _with_new_value(text, node, key, missing, value)
    return _edited(text, _replacement(text, key, node, _written(value, is_in_flow=is_in_flow)))


def _walked(node: Any, path: list[str]) -> tuple[Any, Any, bool, list[str]]:
    """Key and value as far as a path leads, whether braces stand around them, and the keys that are not there."""
    key, is_in_flow = None, False
    for depth, part in enumerate(path):
        pairs = node.value if isinstance(node, MappingNode) else []
        found = next((pair for pair in pairs if pair[0].value == part), None)
        if found is None:
            return key, node, is_in_flow, path[depth:]
        is_in_flow = is_in_flow or bool(node.flow_style)
        key, node = found
    return key, node, is_in_flow, []


def _edited(text: str, edit: tuple[int, int, str]) -> str:
    start, end, written = edit
    return text[:start] + written + text[end:]


def _replacement(text: str, key: Node, node: Node, written: str) -> tuple[int, int, str]:
    """From where to where another value of a key is written, and how; a comment behind it keeps its column if it can."""
    start, end = node.start_mark.index, node.end_mark.index
    if start == end or node.start_mark.line != node.end_mark.line:
        # Nothing stands there, or a block does: the value goes behind the colon, and comments below the block stay.
        start = text.index(":", key.end_mark.index) + 1
        block = text[start:end].rstrip("\n") if isinstance(node, ScalarNode) else _without_comments(text[start:end])
        end, written = start + len(block), f" {written}"
    comment = re.match(r" +(?=#)", text[end:])
    if comment:
        room = end + comment.end() - start - len(written)
        end, written = end + comment.end(), written + " " * max(room, 1)
    return start, end, written


def _without_comments(block: str) -> str:
    """The block without the blank lines and comments at its end."""
    lines = block.split("\n")
    while len(lines) > 1 and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        lines.pop()
    return "\n".join(lines)


def _with_new_value(text: str, parent: Node | None, key: Any, path: list[str], value: Any) -> str:
    """The text with a key added at the end of a mapping, in a line of its own unless the mapping stands between braces."""
    if isinstance(parent, MappingNode) and not parent.flow_style:
        end = _end(text, parent)
        indent = parent.start_mark.column
    elif parent is None:
        end, indent = len(text), 0
    else:
        for part in reversed(path[1:]):
            value = {part: value}
        if not isinstance(parent, MappingNode):
            return _edited(text, _replacement(text, key, parent, _flow({path[0]: value})))
        end = parent.end_mark.index - 1
        return f"{text[:end]}{', ' if parent.value else ''}{_flow({path[0]: value})[1:-1]}{text[end:]}"
    lines = [f"{' ' * (indent + 2 * depth)}{part}:\n" for depth, part in enumerate(path[:-1])]
    last = f"{' ' * (indent + 2 * (len(path) - 1))}{one_line(path[-1], value)}\n"
    before = text[:end] + ("" if text[:end].endswith("\n") or not text[:end] else "\n")
    return "".join([before, *lines, last, text[end:]])


def _end(text: str, node: Node) -> int:
    """Where the line behind the last value of a block begins."""
    while isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
        node = node.value[-1][1] if isinstance(node, MappingNode) else node.value[-1]
    end = node.end_mark.index
    newline = text.find("\n", end)
    if end and text[end - 1] == "\n":
        return end
    return len(text) if newline < 0 else newline + 1


def _put(values: Any, path: list[str], value: Any) -> None:
    for part in path[:-1]:
        if values.get(part) is None:
            values[part] = {}
        values = values[part]
    values[path[-1]] = value


def _check_size(node: Node) -> None:
    """Raise ValueError for what would be too large or too deep if it were written out, each alias and merge in full."""
    sizes: dict[int, int] = {}
    depths: dict[int, int] = {}
    waiting = [(node, False)]
    open_nodes: set[int] = set()
    while waiting:
        item, are_parts_known = waiting.pop()
        parts = _parts(item)
        collections = [part for part in parts if not isinstance(part, ScalarNode)]  # a scalar is of size and depth 1
        if are_parts_known:
            open_nodes.discard(id(item))
            sizes[id(item)] = 1 + len(parts) - len(collections) + sum(sizes[id(part)] for part in collections)
            depths[id(item)] = 1 + max((depths[id(part)] for part in collections), default=int(bool(parts)))
            if sizes[id(item)] > MOST_VALUES:
                raise ValueError(f"its aliases spell out more than {MOST_VALUES} values")
            if depths[id(item)] > DEEPEST:
                raise ValueError(f"it is nested more than {DEEPEST} deep")
        elif id(item) in open_nodes:
            raise ValueError(f"it is nested more than {DEEPEST} deep, since it holds itself")
        elif id(item) not in sizes:
            open_nodes.add(id(item))
            waiting.append((item, True))
            waiting += [(part, False) for part in collections if id(part) not in sizes]


def _parts(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, SequenceNode) else []


def _check_numbers(value: Any) -> None:
    """Raise ValueError for an integer that no setting needs and that takes long to write down."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, int) and item.bit_length() > LARGEST_BITS:
            raise ValueError("a number in it is too large")
        if isinstance(item, Mapping):
            waiting += [part for pair in item.items() for part in pair]
        elif isinstance(item, list | tuple | set):
            waiting += item


def _written(value: Any, *, is_in_flow: bool = False) -> str:
    """A value in one line; a scalar needs more quotes between brackets or braces than in a block."""
    plain = _plain(value)
    if plain is not None:
        return plain
    if is_in_flow or isinstance(value, list | dict):
        return _flow([value])[1:-1]
    return _flow(value).removesuffix("...").rstrip("\n ")


def _plain(value: Any) -> str | None:
    """A value that needs no quotes anywhere, or a list of such values, as PyYAML writes it; None for any other.

    Nearly all keys and values of `config.yaml` are of this kind, and for each PyYAML would set up a writer of whole texts.
    """
    if type(value) is list:
        parts = [None if isinstance(part, list) else _plain(part) for part in value]
        return None if None in parts else f"[{', '.join(filter(None, parts))}]"
    if type(value) is str:
        return value if _SIMPLE_NAME.fullmatch(value) and not _means_something_else(value) else None
    if type(value) is float and math.isfinite(value):
        return repr(value)
    if type(value) is int:
        return str(value)
    return {None: "null", True: "true", False: "false"}[value] if value is None or type(value) is bool else None


def _means_something_else(text: str) -> bool:
    """Whether a plain scalar would be read as something else than a string."""
    return any(pattern.match(text) for _, pattern in _MEANING_BY_FIRST.get(text[0], ()))


def _flow(value: Any) -> str:
    """A list or mapping in one line, between its brackets or braces."""
    written = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return written.strip("\n ")  # other spaces are part of a plain scalar


class _Composer(Composer):
    """Puts together as many values, and as deep ones, as settings have, and no key twice."""

    _nodes = 0
    _depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """A value as it is written; raises ComposerError for more of them than settings have, or deeper ones."""
        self._nodes += 1
        self._depth += 1
        if self._nodes > MOST_WRITTEN:
            raise ComposerError(problem=f"it has more than {MOST_WRITTEN} keys and values")
        if self._depth > DEEPEST:  # the reader would take the square of the depth to come to the end
            raise ComposerError(problem=f"it is nested more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: str | None) -> MappingNode:
        """A mapping as it is written; raises ComposerError for a key that repeats."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, ScalarNode)):
            if (key.tag, key.value) in seen:
                raise ComposerError(problem=f"found duplicate key `{key.value}`", problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node


class _Loader(_Composer, yaml.SafeLoader):
    """Reads scalars as YAML 1.2 does."""

    yaml_implicit_resolvers = _MEANING_BY_FIRST

    def __init__(self, text: str) -> None:
        yaml.SafeLoader.__init__(self, text)

    def scan_to_next_token(self) -> None:
        """Pass over spaces, comments and line breaks; comments are most of a text, and PyYAML looks at every character."""
        if self.index == 0 and self.peek() == _BYTE_ORDER_MARK:
            self.forward()
        while True:
            found = _BETWEEN_TOKENS.match(self.buffer, self.pointer)
            passed = found[0] if found else ""
            self.pointer += len(passed)
            self.index += len(passed)
            self.column += len(passed) - passed.count(_BYTE_ORDER_MARK)
            if not self.scan_line_break():
                return
            if not self.flow_level:
                self.allow_simple_key = True

    def flatten_mapping(self, node: MappingNode) -> None:
        """Take in what `<<` names, below the mapping's own keys, each key once; PyYAML 6.0.4 gets merges of merges wrong."""
        own = [pair for pair in node.value if pair[0].tag != _MERGE]
        seen = {key.value for key, _ in own if isinstance(key, ScalarNode)}
        merged = []
        for value in (value for key, value in node.value if key.tag == _MERGE):
            for source in value.value if isinstance(value, SequenceNode) else [value]:
                if not isinstance(source, MappingNode):
                    raise ComposerError(problem="`<<` names no mapping", problem_mark=value.start_mark)
                self.flatten_mapping(source)
                merged += [pair for pair in source.value if pair[0].value not in seen]
                seen |= {key.value for key, _ in source.value if isinstance(key, ScalarNode)}
        node.value = merged + own


if CParser is not None:

    class _QuickComposer(_Composer, CParser, Resolver):
        """The same nodes of a simple text in a tenth of the time, by libyaml's scanner."""

        yaml_implicit_resolvers = _MEANING_BY_FIRST

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            Composer.__init__(self)
            Resolver.__init__(self)


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 would take for something else than a string."""

    yaml_implicit_resolvers = _MEANING_BY_FIRST


def _int(loader: _Loader, node: ScalarNode) -> int:
    written = loader.construct_scalar(node).replace("_", "")
    return int(written, _BASES.get(written.lstrip("-+")[:2], 10))  # int knows the prefix of the base it is told


def _float(loader: _Loader, node: ScalarNode) -> float:
    written = loader.construct_scalar(node).replace("_", "").lower()
    return float(written.replace(".inf", "inf").replace(".nan", "nan"))


def _written_float(dumper: _Dumper, value: float) -> ScalarNode:
    written = repr(value) if math.isfinite(value) else repr(value).replace("inf", ".inf").replace("nan", ".nan")
    return dumper.represent_scalar(_FLOAT, written)


_Loader.add_constructor(_INT, _int)
_Loader.add_constructor(_FLOAT, _float)
_Dumper.add_representer(float, _written_float)
