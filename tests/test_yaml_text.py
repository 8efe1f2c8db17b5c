"""YAML with ruamel.yaml and without it: the same values, and the same refusals."""

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from command_line import on, refused, snapshot
from hypothesis import example, given, settings
from hypothesis import strategies as st

from activedpo_cli.base.config import render_config, with_changes
from activedpo_cli.base.errors import ActiveDPOError, UsageError
from activedpo_cli.base.settings import Config
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


@contextlib.contextmanager
def without_ruamel() -> Iterator[None]:
    with mock.patch.dict(sys.modules, {"ruamel.yaml": None}):
        yield


def outcome(text: str) -> str:
    """What a text means, with its types, or that it is refused."""
    try:
        return repr(read_yaml(text))
    except UsageError:
        return "refused"


@pytest.mark.parametrize("text", MEANINGS)
def test_scalars_mean_what_yaml_1_2_says(text: str) -> None:
    assert repr(read_yaml(text)) == repr(MEANINGS[text])
    with without_ruamel():
        assert repr(read_yaml(text)) == repr(MEANINGS[text])


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
    expected = outcome(text)
    with without_ruamel():
        assert outcome(text) == expected


@pytest.mark.parametrize(
    "text",
    ["seed: 1\nseed: 2\n", "a: {b: 1, b: 1}\n", "a:\n  - {no: 1, c: 2, no: 3}\n", "{}: 1\n", "a: &x {b: 1}\nc: *y\n"],
)
def test_repeated_keys_and_nonsense_are_refused(text: str) -> None:
    assert outcome(text) == "refused"
    with without_ruamel():
        assert outcome(text) == "refused"


@pytest.mark.parametrize("value", ["b?", ":b"])
def test_what_only_ruamel_reads_is_refused_without_it(value: str) -> None:
    text = f"a: [{value}]\n"
    assert read_yaml(text) == {"a": [value]}
    with without_ruamel(), pytest.raises(UsageError) as caught:
        read_yaml(text)
    assert caught.value.hint == "pip install ruamel.yaml"


def test_what_only_ruamel_merges_rightly_is_refused_without_it() -> None:
    text = "a: &a {b: 1}\nc: {<<: *a, b: 2}\n"
    assert read_yaml(text)["c"] == {"b": 2}
    with without_ruamel(), pytest.raises(UsageError, match="ruamel"):
        read_yaml(text)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_whoever_writes_and_whoever_reads(value: Any) -> None:
    """A value arrives, in a block and between braces, whichever of the two libraries is at either end.

    Left out: `a?` and `:a`, which ruamel.yaml writes without quotes in a list. PyYAML refuses them there.
    """
    written = [one_line("key", value)]
    with without_ruamel():
        written.append(one_line("key", value))
    for line in written:
        for text in (f"a:\n  {line}  # comment\n", f"a: {{{line}}}\n"):
            assert read_yaml(text) == {"a": {"key": value}}
            with without_ruamel():
                assert read_yaml(text) == {"a": {"key": value}}


def test_both_agree_on_the_default_settings() -> None:
    expected = repr(read_yaml(DEFAULTS))
    with without_ruamel():
        rendered = render_config(Config())
        assert repr(read_yaml(DEFAULTS)) == repr(read_yaml(rendered)) == expected
    assert repr(read_yaml(rendered)) == expected


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(list(CHANGES))))
def test_values_change_in_their_places(keys: set[str]) -> None:
    changes = {key: CHANGES[key] for key in keys}
    with without_ruamel():
        changed = changed_yaml(DEFAULTS, changes)
    assert read_yaml(changed) == read_yaml(changed_yaml(DEFAULTS, changes))
    assert Config.model_validate(read_yaml(changed)) == with_changes(Config(), changes)
    pairs = list(zip(DEFAULTS.splitlines(), changed.splitlines(), strict=True))
    assert sum(before != after for before, after in pairs) == len(changes)
    assert (
        re.findall("  # .*", changed)[-len(Config.model_fields) :]
        == re.findall("  # .*", DEFAULTS)[-len(Config.model_fields) :]
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("seed: 1\n", "select.budget"),  # a new section
        ("select: {budget: 1}\n", "select.methods.activedpo.ridge"),  # a new setting
        ("select:\n  budget:  # none\n", "select.budget"),  # no value to replace
        ("a:\n- 1\n- 2\n", "a"),
        ("a: |\n  text\nb: 1\n", "a"),
        ("a: &one 1\nb: *one\n", "b"),  # would change a as well
        ("", "a"),
    ],
)
def test_other_changes_name_the_package_they_need(text: str, key: str) -> None:
    with without_ruamel(), pytest.raises(ActiveDPOError, match=r"`ruamel\.yaml`") as caught:
        changed_yaml(text, {key: 5})
    assert caught.value.hint == "pip install ruamel.yaml"
    assert changed_yaml(text, {key: 5}) != text


def test_a_refused_change_leaves_the_run_as_it_was(new_run: Path) -> None:
    before = snapshot(new_run)
    with without_ruamel():
        said = refused(1, *on(new_run, "generate", iteration=1), "--set", "select.methods.activedpo.ridge=0.5")
    assert "pip install ruamel.yaml" in said
    assert snapshot(new_run) == before
