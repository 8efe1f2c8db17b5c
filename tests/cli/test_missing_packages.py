"""Where only some of the dependencies were installed, a command names what it lacks, and keeps what there is."""

import tomllib
from pathlib import Path

import pytest
from command_line import is_told, on, refused, snapshot
from zygote import Zygote

from activedpo_cli.cli.app import DISTRIBUTIONS, OWN_PACKAGES

ROOT = Path(__file__).parents[2]


def arguments(run: Path, words: tuple[object, ...]) -> tuple[object, ...]:
    return (words[0], run, *words[1:]) if words[0] == "report" else on(run, *words)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("trl", ("train", "--iteration", 2, "--force")),
        ("matplotlib", ("compare", "random")),
        ("matplotlib", ("report",)),
    ],
)
def test_a_dependency_that_is_not_installed(
    finished: Path, zygote: Zygote, tmp_path: Path, missing: str, words: tuple
) -> None:
    before, said = snapshot(finished), tmp_path / "said"
    assert zygote.run(arguments(finished, words), tmp_path, stderr=said, without=(missing,)) == 1
    is_told(said.read_text(), missing)
    assert snapshot(finished) == before


def test_another_missing_package_is_named_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def needy(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'vllm.engine'", name="vllm.engine")

    monkeypatch.setattr("activedpo_cli.run.choices.choices", needy)
    message = refused(1, "ls")
    assert "needs the package `vllm`" in message
    assert "pip install vllm" in message


@pytest.mark.parametrize("name", ["activedpo_cli.nowhere", None])
def test_a_missing_module_of_our_own_is_a_bug(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    from command_line import CliRunner

    from activedpo_cli.cli.app import app

    def broken(*_: object) -> None:
        raise ModuleNotFoundError("No module", name=name)

    monkeypatch.setattr("activedpo_cli.run.choices.choices", broken)
    result = CliRunner().invoke(app, ["ls"])
    assert result.exit_code == 1
    assert "this is a bug" in result.stderr


def test_the_list_of_packages_is_that_of_the_dependencies() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {name for line in declared if (name := line.partition(">")[0])}
    assert {DISTRIBUTIONS.get(package, package) for package in OWN_PACKAGES} == names
