"""YAML means here what it means to ruamel.yaml, an independent reader of YAML 1.2, which only these tests use."""

import io
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from activedpo_cli.base import yaml_text
from activedpo_cli.base.config import render_config, with_changes
from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.settings import SECTIONS, Config
from activedpo_cli.base.yaml_text import changed_yaml, one_line, read_yaml

MEANINGS = {  # what YAML 1.2 says they are; 1.1 differs in most
    "no": "no",
    "on": "on",
    "y": "y",
    "Yes": "Yes",
    "TRUE": True,
    "false": False,
    "Null": None,
    "~": None,
    "": None,
    "1e-4": 1e-4,
    "3.0e-4": 3e-4,
    "1e5": 1e5,
    "-.5": -0.5,
    ".inf": float("inf"),
    "-.INF": -float("inf"),
    "1.": 1.0,
    "017": 17,
    "08": 8,
    "0o17": 15,
    "-0o17": -15,
    "0x1F": 31,
    "12:30": "12:30",
    "1:2.5": "1:2.5",
    "+12": 12,
    "e5": "e5",
    "1e": "1e",
    "'no'": "no",
    '"1e5"': "1e5",
    "[no, 1e-3, {a: 017}]": ["no", 1e-3, {"a": 17}],
}
SCALARS = st.text("0123456789+-._eExobXOB", min_size=1, max_size=8) | st.text("trueTRUfalsnoyNO~", max_size=5)
NAMES = st.text("anulNtrueY_0", max_size=5) | st.text("ay_.-/0e+:", max_size=8)
SIGNS = st.characters(max_codepoint=0x1FFFF, exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="?")
TEXT = st.text(SIGNS, max_size=20).filter(lambda text: text[:1] != ":")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | TEXT
    | SCALARS
    | st.sampled_from([*MEANINGS]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "no", "1e5"]), inner, max_size=3),
    max_leaves=6,
)
DEFAULTS = render_config(Config())
CHANGES = {
    "seed": 3,
    "model.name": "# no: 'such'",
    "model.revision": "1e5",
    "generate.temperature": 1e-7,
    "generate.stop_token_ids": [1, 2],
    "generate.recorded_eos": not Config().generate.recorded_eos,
    "select.max_per_prompt": 2,
    "select.budget": 4,
    "train.learning_rate": 1e-12,
}


def by_ruamel(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def written_by_ruamel(value: Any) -> str:
    yaml, stream = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style, yaml.width = True, 4096
    yaml.dump({"key": value}, stream)
    return stream.getvalue()


@pytest.mark.parametrize("text", MEANINGS)
def test_scalars_mean_what_yaml_1_2_says(text: str) -> None:
    assert repr(read_yaml(text)) == repr(MEANINGS[text]) == repr(by_ruamel(text))


@settings(max_examples=400, deadline=None)
@given(SCALARS | TEXT.filter(lambda text: not set(text) & set("&:|>")))  # signs of a block's structure, not of scalars
@example("2024-01-01")
@example("2024-13-45")
@example("1_000")
@example("0b_")
@example("=")
@example("a: b: c")
@example("[")
@example("'")
def test_both_readers_agree_on_scalars(text: str) -> None:
    try:
        expected = repr(by_ruamel(text))
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError, AssertionError):
        expected = "refused"
    try:
        assert repr(read_yaml(text)) == expected
    except UsageError:
        assert expected == "refused"


@pytest.mark.parametrize(
    "text",
    ["seed: 1\nseed: 2\n", "a: {b: 1, b: 1}\n", "a:\n  - {no: 1, c: 2, no: 3}\n", "{}: 1\n", "a: &x {b: 1}\nc: *y\n"],
)
def test_repeated_keys_and_nonsense_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not valid YAML"):
        read_yaml(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {b: 1}\nc: {<<: *a, b: 2}\n",
        "a: &a {b: 1, x: 1}\nb: &b {<<: *a, b: 2}\nc: {<<: [*b, *a], d: 3}\n",
        "a: &a {x: 1}\nb: &b {x: 2}\nc: {<<: [*a, *b]}\n",
    ],
)
def test_merges(text: str) -> None:
    """Own values go before merged ones, and earlier before later, also where merges are merged."""
    assert read_yaml(text) == by_ruamel(text)


@pytest.mark.parametrize("text", ["a: &a {<<: *a, b: 1}\n", "c: {<<: 3}\n"])
def test_merges_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_yaml(text)


def bomb(first: str, line: str) -> str:
    """29 levels, each of which names the level below it ten times."""
    levels = [line.format(own=f"a{n}", below=", ".join([f"*a{n - 1}"] * 10), number=n) for n in range(1, 29)]
    return "\n".join([f"a0: &a0 {first}", *levels])


@pytest.mark.parametrize(
    "text",
    [
        bomb("{k: 1}", "{own}: &{own} {{<<: [{below}]}}"),
        bomb("{k: 1}", "{own}: &{own} {{<<: [{below}], k{number}: 1}}"),
        bomb("{k: 1}", "{own}: &{own} {{<<: [{below}], k{number}: [{below}]}}"),
        bomb("[1]", "{own}: &{own} [{below}]"),
        "a: &a [*a, *a]\n",
        "\n".join(f"k{n}: &a{n} 1" for n in range(30_000)),
        f"a: [{', '.join(f'&a{n} 1' for n in range(60_000))}]",
        f"a: &a 1\nb: [{', '.join(['*a'] * 60_000)}]",
    ],
    ids=["merges", "merges-with-keys", "merges-and-values", "lists", "itself", "keys", "anchors", "aliases"],
)
def test_what_would_grow_is_refused_before_it_does(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is built: neither is a merge taken in nor a value made."""

    def build(*words: object) -> None:
        raise AssertionError("it was built")

    monkeypatch.setattr(yaml_text._Loader, "construct_document", build)
    with pytest.raises(UsageError, match=r"more than \d+"):
        read_yaml(text)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_whoever_writes_and_whoever_reads(value: Any) -> None:
    """A value arrives, in a block and between braces, at both readers; so does one that ruamel.yaml wrote in a run before.

    Left out: `a?` and `:a`, which ruamel.yaml writes without quotes in a list. PyYAML refuses them there.
    """
    in_block = f"a:\n  {one_line('key', value)}  # comment\n"
    for text in (in_block, changed_yaml("a: {key: 1}\n", {"a.key": value})):
        assert read_yaml(text) == by_ruamel(text) == {"a": {"key": value}}
    assert read_yaml(written_by_ruamel(value)) == {"key": value}


@given(VALUES | NAMES | st.lists(NAMES | st.integers() | st.floats() | st.booleans(), max_size=3))
@example(["null", None, True, -0.0, 1e16, 10**30, "a/b-c.d"])
@example([])
@example([[]])
def test_what_needs_no_quotes_is_written_as_pyyaml_writes_it(value: Any) -> None:
    quickly = yaml_text._plain(value)
    if quickly is not None:
        assert quickly == yaml_text._flow([value])[1:-1]
        assert quickly == yaml_text._flow(value).removesuffix("...").rstrip("\n ")


def test_most_settings_need_no_quotes() -> None:
    values = [value for section in SECTIONS for value in getattr(Config(), section).model_dump(mode="json").values()]
    assert sum(yaml_text._plain(value) is not None for value in values) > 0.9 * len(values)


def test_who_changes_what_was_read_changes_no_later_reading() -> None:
    text = "a: {b: [1, 2]}\n"
    read_yaml(text)["a"]["b"].append(3)
    read_yaml(text)["a"]["c"] = 4
    assert read_yaml(text) == by_ruamel(text)


def test_both_agree_on_the_default_settings() -> None:
    assert repr(read_yaml(DEFAULTS)) == repr(by_ruamel(DEFAULTS))


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(list(CHANGES))))
def test_values_change_in_their_places(keys: set[str]) -> None:
    changes = {key: CHANGES[key] for key in keys}
    changed = changed_yaml(DEFAULTS, changes)
    assert Config.model_validate(by_ruamel(changed)) == with_changes(Config(), changes)
    pairs = list(zip(DEFAULTS.splitlines(), changed.splitlines(), strict=True))
    assert sum(before != after for before, after in pairs) == len(changes)
    comments = [[line[line.rfind("# ") :] for line in lines if "# " in line] for lines in zip(*pairs, strict=True)]
    assert comments[0] == comments[1]


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("seed: 1\n", "select.budget", "seed: 1\nselect:\n  budget: 5\n"),
        ("seed: 1", "a", "seed: 1\na: 5\n"),
        ("", "a", "a: 5\n"),
        ("# nothing yet\n", "a.b", "# nothing yet\na:\n  b: 5\n"),
        ("a:\n", "a.b", "a: {b: 5}\n"),
        ("select: {budget: 1}\n", "select.activedpo.ridge", "select: {budget: 1, activedpo: {ridge: 5}}\n"),
        ("select: {}  # none\n", "select.budget", "select: {budget: 5}  # none\n"),
        ("select:\n  budget:  # none\n", "select.budget", "select:\n  budget: 5 # none\n"),
        ("a:\n- 1\n- 2\n", "a", "a: 5\n"),
        ("a:\n  b:\n    - 1\n  # above c\n  c: 1\n", "a.b", "a:\n  b: 5\n  # above c\n  c: 1\n"),
        ("a: |\n  text\nb: 1\n", "a", "a: 5\nb: 1\n"),
        ("a:\n  b: 1  # one\n\n# of c\nc: 2\n", "a.d", "a:\n  b: 1  # one\n  d: 5\n\n# of c\nc: 2\n"),
        ("a: 12345  # five\nb: 1\n", "a", "a: 5      # five\nb: 1\n"),
        ("a: 1  # one\n", "a", "a: 5  # one\n"),
    ],
)
def test_nothing_else_changes(text: str, key: str, expected: str) -> None:
    assert changed_yaml(text, {key: 5}) == expected


@pytest.mark.parametrize("text", ["a: &one 1\nb: *one\n", "b: &one 1\na: *one\n"])
def test_a_change_that_would_change_more_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="only you can change") as caught:
        changed_yaml(text, {"b": 5})
    assert caught.value.hint == "write b there yourself"


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("a: 1  # one\nb: {c: 2, d: [3]}  # two\ne:\n- 4\n# end\n", {"e": [6], "b.d": 7, "a": 12345, "b.c": "x, y"}),
        ("a: 1\nb: {c: 2}\n", {"b.new": 3, "b.c": 4, "z.y": 5, "a": 6}),
        ("a: 1\nb:\n  c: 2\n", {"b": {"c": 3, "d": 4}, "b.c": 5}),
    ],
)
def test_changes_at_once_are_changes_one_by_one(text: str, changes: dict[str, Any]) -> None:
    """Also where they are added, and where one holds another."""
    at_once = changed_yaml(text, changes)
    for key, value in changes.items():
        text = changed_yaml(text, {key: value})
    assert at_once == text


def test_a_change_that_would_leave_an_alias_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="only you can change"):
        changed_yaml("a: &one 1\nb: *one\n", {"a": 5, "b": 5})


SIMPLE_KEYS = st.sampled_from(["a", "b.c", "e-f", "_g", "true", "null", "y", "n-", "q.", "<<", "1"])
SIMPLE_VALUES = st.sampled_from(
    ["", "1", "-1", "1e-4", "no", "null", "-.inf", "a:b", "a:--b", "http://x/y:8/v1", "'a # b'", '"x: y"', "''", "[]"]
    + ["[a, -2, c-]", "..", "-...", "---", "~", "{}", "26 Jul 2024", "a -b:c", "a - b", "a: b", '"\\n"', "[-, a]", "[a"]
)
COMMENTS = st.sampled_from(["", "", "#", " #", " # c: d", "  # θ ≤ → é – '\"[{", " # \u2028"])
SIMPLE_LINES = st.builds(
    lambda indent, before, comment: f"{indent}{before}{comment}",
    st.sampled_from(["", "", "", "  ", "  ", "    ", " "]),
    st.builds("{}: {}".format, SIMPLE_KEYS, SIMPLE_VALUES) | SIMPLE_KEYS.map("{}:".format) | st.just(""),
    COMMENTS,
)


def nodes(node: yaml.Node | None) -> Any:
    """All that is ever read of what was put together: kinds, values and places."""
    if node is None:
        return None
    marks = [(mark.index, mark.line, mark.column) for mark in (node.start_mark, node.end_mark)]
    flow = None if isinstance(node, yaml.ScalarNode) else node.flow_style
    parts = node.value
    if isinstance(node, yaml.CollectionNode):
        parts = [[nodes(part) for part in (item if isinstance(item, tuple) else (item,))] for item in node.value]
    return type(node), node.tag, marks, flow, parts


@pytest.mark.skipif(yaml_text.CParser is None, reason="needs a PyYAML with libyaml")
@given(st.lists(SIMPLE_LINES, max_size=6).map(lambda lines: "".join(f"{line}\n" for line in lines)))
@example(render_config(Config()))
def test_what_is_read_quickly_is_read_alike(text: str) -> None:
    if not yaml_text._SIMPLE_TEXT.fullmatch(text):
        return
    try:
        slowly = nodes(yaml.compose(text, Loader=yaml_text._Loader))
    except yaml.YAMLError:
        with pytest.raises(yaml.YAMLError):
            yaml.compose(text, Loader=yaml_text._QuickComposer)
        return
    assert nodes(yaml.compose(text, Loader=yaml_text._QuickComposer)) == slowly


def test_settings_as_they_are_written_are_read_quickly() -> None:
    assert yaml_text._SIMPLE_TEXT.fullmatch(render_config(Config()))
