"""YAML 1.2 by PyYAML, which reads 1.1 by itself: `no` and `on` are words, `1e-4` is a number, repeated keys are refused.

PyYAML is there wherever transformers is. Scalars mean what they mean to ruamel.yaml, which `yaml_text` prefers; some
rare signs of 1.2 it refuses, such as `[a?, :b]` without quotes.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml
from yaml import YAMLError as YAMLError
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

_BOOL, _INT, _FLOAT, _MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "merge"))
_MEANINGS = (  # tag, pattern, first characters: in this order, as ruamel.yaml tries them
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


class NotInPlaceError(Exception):
    """A change that can't be made by putting a new value where the old one stands."""


def load(text: str) -> Any:
    """What the text holds; raises YAMLError, or ValueError for numbers and dates that are none."""
    return yaml.load(text, Loader=_Loader)  # a safe loader


def dump_flow(value: Any) -> str:
    """A list or mapping in one line, between its brackets or braces."""
    return yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
    ).strip()


def replaced(text: str, changes: Mapping[str, Any]) -> str:
    """The text with other values at dotted keys, nothing else touched.

    Raises NotInPlaceError where a key is not there yet, or its value is not one that stands within a line.
    """
    expected = load(text)
    root = yaml.compose(text, Loader=_Loader)
    edits = []
    for key, value in changes.items():
        node = _value_node(root, key)
        edits.append((node.start_mark.index, node.end_mark.index, dump_flow([value])[1:-1]))
        _put(expected, key, value)
    result = text
    for start, end, written in sorted(edits, reverse=True):
        result = result[:start] + written + result[end:]
    try:
        arrived = load(result) == expected
    except (YAMLError, ValueError):
        arrived = False
    if not arrived:
        raise NotInPlaceError("the file is laid out in a way that only it can change")
    return result


def _value_node(node: Node | None, key: str) -> Node:
    for part in key.split("."):
        pairs = node.value if isinstance(node, MappingNode) else []
        node = next((value for name, value in pairs if name.value == part), None)
    if node is None:
        raise NotInPlaceError(f"`{key}` is not in the file yet")
    if node.start_mark.line != node.end_mark.line or not (isinstance(node, ScalarNode | SequenceNode)):
        raise NotInPlaceError(f"`{key}` does not stand in one line")
    return node


def _put(values: Any, key: str, value: Any) -> None:
    *path, leaf = key.split(".")
    for part in path:
        values = values[part]
    values[leaf] = value


class _Loader(yaml.SafeLoader):
    """Reads scalars as YAML 1.2 does."""

    yaml_implicit_resolvers = _MEANING_BY_FIRST

    def compose_mapping_node(self, anchor: str | None) -> MappingNode:
        """A mapping as it is written; raises ComposerError for a key that repeats, and for `<<`."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, ScalarNode)):
            if key.tag == _MERGE:  # PyYAML 6.0.4 gets merges of merges wrong, silently
                raise ComposerError(problem="merging with `<<` needs the package ruamel.yaml")
            if (key.tag, key.value) in seen:
                raise ComposerError(problem=f"found duplicate key `{key.value}`", problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 would take for something else than a string."""

    yaml_implicit_resolvers = _MEANING_BY_FIRST


def _int(loader: _Loader, node: ScalarNode) -> int:
    written = loader.construct_scalar(node).replace("_", "")
    return int(written, _BASES.get(written.lstrip("-+")[:2], 10))  # int knows the prefix of the base it is told


def _float(loader: _Loader, node: ScalarNode) -> float:
    written = loader.construct_scalar(node).replace("_", "").lower()
    return float(written.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor(_INT, _int)
_Loader.add_constructor(_FLOAT, _float)
