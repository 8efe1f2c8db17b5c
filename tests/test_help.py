"""Help and reference that can be trusted: every command shows an example that parses, every setting says what it means."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from command_line import activedpo
from typer.main import get_command

from activedpo_cli.base.settings import SECTIONS, Config, JudgeSettings
from activedpo_cli.cli.app import app

GROUP = get_command(app)


def commands_of(group: Any, *before: str) -> dict[str, Any]:
    """The commands of a group by all their words; those of groups within it stand for them."""
    found = {}
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        words = (*before, name)
        found |= commands_of(command, *words) if hasattr(command, "commands") else {" ".join(words): command}
    return found


COMMANDS = commands_of(GROUP)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    command = COMMANDS[name]
    assert "Example:" in (command.help or "")
    for example in re.findall(r"Example:\s+(activedpo .*)", command.help):
        own = ["activedpo", *name.split()]
        words = shlex.split(example)
        assert words[: len(own)] == own
        with GROUP.make_context("activedpo", list(words[1:]), resilient_parsing=True) as context:
            command.make_context(name, words[len(own) :], parent=context)  # raises on a flag that does not exist
    result = activedpo(*name.split(), "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_the_root_help_names_every_command() -> None:
    text = activedpo("--help").stdout
    for name in GROUP.list_commands(None):  # type: ignore[attr-defined]
        assert re.search(rf"^\W*{name}\b", text, re.MULTILINE), name
    quick = re.search(r"Quick start:\s+(activedpo .*?)\s*$", text, re.MULTILINE)
    assert quick
    words = shlex.split(quick[1])
    GROUP.get_command(None, words[1]).make_context(words[1], words[2:])  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("name", COMMANDS)
def test_names_are_whole_at_any_width(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = activedpo(*name.split(), "--help").stdout
    assert max(map(len, text.splitlines())) <= width
    words = set(re.split(r"[\s,│|]+", text))
    for parameter in COMMANDS[name].params:
        flags = {flag for flag in (*parameter.opts, *parameter.secondary_opts) if flag.startswith("-")}
        assert flags <= words
    assert not re.search(r"\w…", text)


def test_a_long_example_can_be_typed_as_it_stands_in_the_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = activedpo("bench", "featurize", "--help").stdout
    shown = re.search(r"Example:\s+(activedpo (?:.*\\\n)*.*)", text)
    written = re.search(r"Example:\s+(activedpo .*)", COMMANDS["bench featurize"].help)
    assert shown
    assert written
    assert "\n" in shown[1]
    assert shlex.split(shown[1].replace("\\\n", "")) == shlex.split(written[1])


def test_square_brackets_of_a_help_are_no_markup() -> None:
    assert "--set key=[a,b]" in " ".join(activedpo("experiment", "--help").stdout.split())


def test_values_are_written_as_they_are_typed() -> None:
    text = " ".join(re.sub("[│╭╮╰╯]", "", activedpo("generate", "--help").stdout).split())
    assert "human, judge:MODEL, mixed:MODEL, recorded, reward-model:MODEL" in text
    assert "auto: the tokenizer" in text


def test_help_is_printed_in_any_encoding() -> None:
    from typer.testing import CliRunner

    result = CliRunner(charset="ascii").invoke(app, ["sft", "--help"])
    assert result.exit_code == 0
    assert r"\u03c0_SFT" in result.stdout


@pytest.mark.parametrize("section", [Config, *SECTIONS.values(), JudgeSettings], ids=lambda section: section.__name__)
def test_every_setting_says_what_it_means(section: type) -> None:
    assert section.__doc__
    for name, field in section.model_fields.items():  # type: ignore[attr-defined]
        if name not in SECTIONS:
            assert field.description, name
            assert not field.description.endswith("."), name


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_show_their_defaults_and_no_setting_has_two(name: str) -> None:
    command = COMMANDS[name]
    flags = [flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)]
    repeated = {flag for flag in flags if flag.startswith("-") and flags.count(flag) > 1}
    assert not repeated
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_every_file_of_a_run_is_described(finished_original: Path) -> None:
    """Numbers in names stand for any number, and `tokenizer` for the files that the library makes of it."""
    described = (Path(__file__).parent.parent / "docs" / "artifacts.md").read_text(encoding="utf-8")
    files = [path for path in finished_original.rglob("*") if path.is_file()]
    files = [path for path in files if path.suffix != ".lock" and not path.name.startswith("tokenizer")]
    names = {re.sub(r"-(\d{5}|[0-9a-f]{12})(?=\.)", "", path.name) for path in files}
    silent = [name for name in names if name not in re.sub(r"-(\d{5}|[0-9a-f]{12}|N+|\*|NNNNN)(?=\.)", "", described)]
    assert not silent
