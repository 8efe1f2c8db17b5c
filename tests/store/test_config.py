"""`config.yaml` as people edit it and as flags change it."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from activedpo_cli.base.config import (
    build_config,
    nested,
    parse_assignment,
    parse_config,
    render_config,
    with_changes,
)
from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.settings import Config
from activedpo_cli.base.yaml_text import changed_yaml

PLAIN = st.text(st.characters(max_codepoint=0x2FF, blacklist_categories=["Cc"]), min_size=1, max_size=20)
SOME_SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(-(2**40), 2**40),
        "model.name": PLAIN
        | st.sampled_from(["null", "true", "1e5", "a: b", "# x", "- y", "'", '"', "no", "~", "{", "*a"]),
        "model.revision": st.none() | PLAIN,
        "generate.temperature": st.floats(1e-6, 1e6),
        "generate.stop_token_ids": st.lists(st.integers(0, 10**6), max_size=4),
        "generate.recorded_eos": st.booleans(),
        "generate.responses": st.none() | PLAIN,
        "adapter.target_modules": st.just("all-linear") | st.lists(st.sampled_from(["a", "b.c", "d"]), min_size=1),
        "select.max_per_prompt": st.none() | st.integers(1, 100),
        "select.methods.activedpo.ridge": st.floats(1e-9, 1e9),
        "train.learning_rate": st.floats(1e-12, 1.0),
    },
)


@settings(max_examples=40, deadline=None)
@given(SOME_SETTINGS)
@example({"model.name": "\xa0", "model.revision": "a\u2003"})
def test_what_is_rendered_is_read_back(values: dict) -> None:
    config = build_config(nested(values))
    assert parse_config(render_config(config)) == config


@settings(max_examples=20, deadline=None)
@given(SOME_SETTINGS)
@example({"model.name": "\u2003a", "model.revision": "\xa0"})
def test_a_change_arrives_and_keeps_every_comment(values: dict) -> None:
    text = render_config(Config())
    changed = changed_yaml(text, values)
    assert parse_config(changed) == with_changes(Config(), values)
    written = re.findall(r" # .*", text)
    assert all(comment in changed for comment in written)
    assert changed_yaml(changed, values) == changed


def test_comments_and_order_of_people_stay() -> None:
    text = "# mine\nseed: 3   # three\ngenerate:\n  # about top_p\n  top_p: 0.5 # half\n\n  top_k: 2\n"
    changed = changed_yaml(text, {"generate.top_p": 0.75, "select.budget": 9})
    assert changed.startswith("# mine\nseed: 3   # three\ngenerate:\n  # about top_p\n  top_p: 0.75")
    assert "# half" in changed
    assert changed.index("top_p") < changed.index("top_k")
    assert parse_config(changed).select.budget == 9


def test_the_default_file_says_what_everything_means() -> None:
    lines = [line for line in render_config(Config()).splitlines() if line.strip()]
    assert all("  # " in line for line in lines)
    assert parse_config("\n".join(lines)) == Config()


def test_every_problem_at_once_with_the_nearest_name() -> None:
    text = (
        "seed: x\ntrian: {}\ntrain: {betta: 1}\ngenerate: {top_p: 2, num_responses: 1}\nevaluate: {temperature: .nan}\n"
    )
    with pytest.raises(UsageError, match="6 problems") as caught:
        parse_config(text)
    said = "\n".join(caught.value.details)
    assert "trian  unknown setting — did you mean `train`?" in said
    assert "train.betta  unknown setting — did you mean `train.beta`?" in said
    for key in ("seed", "generate.top_p", "generate.num_responses", "evaluate.temperature"):
        assert f"{key}  " in said


@pytest.mark.parametrize("text", ["- 1\n", "3\n", "seed: [\n", "a: b: c\n", "{}: 1\n"])
def test_what_is_not_settings_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_config(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select.budget=50", ("select.budget", 50)),
        ("train.learning-rate=1e-4", ("train.learning_rate", 1e-4)),
        ("train.learning-rate=1.0e-4", ("train.learning_rate", 1e-4)),
        ("generate.stop_token_ids=[1, 2]", ("generate.stop_token_ids", [1, 2])),
        ("model.name=org/model:x", ("model.name", "org/model:x")),
        ("model.revision=null", ("model.revision", None)),
        ("prompts.source=a=b", ("prompts.source", "a=b")),
    ],
)
def test_assignments(text: str, expected: tuple) -> None:
    key, value = parse_assignment(text)
    assert key == expected[0]
    assert with_changes(Config(), {key: value}) == with_changes(Config(), dict([expected]))


@pytest.mark.parametrize("text", ["", "a", "=3", " =3"])
def test_assignments_without_a_key(text: str) -> None:
    with pytest.raises(UsageError, match="key=value"):
        parse_assignment(text)
