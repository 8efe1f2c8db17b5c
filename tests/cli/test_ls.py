"""`activedpo ls`: what there is to choose from."""

import json

import pytest
from command_line import done, refused

from activedpo_cli.base import discovery
from activedpo_cli.experiments.spec import built_in_specs


def test_methods_are_listed_with_what_they_need() -> None:
    """As their modules say when they are imported, though listing imports none."""
    shown = json.loads(done("ls", "methods", "--json").stdout)
    names = discovery.available("acquisition")
    assert {name: row["help"] for name, row in shown.items()} == names
    for name in names:
        assert shown[name]["needs"] == list(discovery.load("acquisition", name).NEEDS)
    line = next(line for line in done("ls", "methods").stdout.splitlines() if line.startswith("adpo "))
    assert "hidden, logps, ref_logps" in line


def test_experiments_are_listed() -> None:
    assert json.loads(done("ls", "experiments", "--json").stdout) == built_in_specs()
    assert "table-1-tiny" in done("ls", "experiments").stdout


def test_without_a_word_it_names_what_else_can_be_listed() -> None:
    alone = done("ls")
    assert alone.stdout == done("ls", "methods").stdout
    for kind in ("oracles", "prompts", "models", "presets", "experiments"):
        assert kind in alone.stderr
        assert done("ls", kind).stdout
    assert done("ls", "methods").stderr == ""


@pytest.mark.parametrize("word", ["methodes", "experiment"])
def test_an_unknown_word_is_answered_with_the_known_ones(word: str) -> None:
    assert "known: methods, oracles, prompts, datasets, models, presets, experiments" in refused(2, "ls", word)
