"""What a shell is offered when Tab is pressed, asked in the way in which a shell asks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from activedpo_cli.base.settings import SECTIONS, JudgeSettings
from activedpo_cli.cli.app import app


def offered(words: str) -> list[str]:
    """The words that may stand where `words` ends."""
    place = len(words.split(" ")) - 1
    asked = {"_ACTIVEDPO_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    result = CliRunner().invoke(app, [], prog_name="activedpo", env=asked)
    assert "Traceback" not in result.output
    assert result.exit_code == 0, result.output
    return result.stdout.split()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of which one has two iterations, and a folder that is none."""
    for name in ("runs/first/iter-001", "runs/first/iter-002", "runs/second", "runs/notes"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("first", "second"):
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands() -> None:
    assert offered("activedpo la") == ["label"]


@pytest.mark.usefixtures("place")
def test_runs_and_their_iterations() -> None:
    assert offered("activedpo label --run ") == ["first", "second"]
    assert offered("activedpo report f") == ["first"]
    assert offered("activedpo label --run ./") == ["./runs/"]
    assert offered("activedpo label --run runs/") == ["runs/first", "runs/notes/", "runs/second"]
    assert offered("activedpo label --run first --iteration ") == ["1", "2", "3"]
    assert offered("activedpo label --run nowhere --iteration ") == ["1"]
    assert offered("activedpo label --run ../-/- --iteration ") == []


def test_every_setting_is_offered() -> None:
    names = set(offered("activedpo select --set "))
    fields = {f"{section}.{name}=" for section, kind in SECTIONS.items() for name in kind.model_fields}
    judge = {f"label.judge.{name}=" for name in JudgeSettings.model_fields}
    assert names >= {"seed=", *fields, *judge} - {"select.methods=", "label.judge="}
    assert offered("activedpo compare --set select.methods.apo.r") == ["select.methods.apo.ridge="]


def test_choices() -> None:
    assert offered("activedpo select --method ac") == ["activedpo"]
    assert offered("activedpo run --normalise ") == ["response", "pair", "none"]
    assert offered("activedpo label --oracle h") == ["human"]
    assert offered("activedpo init --preset t") == ["tiny"]
    assert offered("activedpo ls r") == ["runs"]
    assert offered("activedpo compare rand") == ["random"]


ASKED = """
source "$HOME/.bash_completions/activedpo.sh"
COMP_WORDS=(activedpo select --method ac); COMP_CWORD=3
_activedpo_completion activedpo
echo "offered: ${COMPREPLY[*]}"
"""


@pytest.mark.whole
def test_a_bash_that_installed_it_offers_words(tmp_path: Path) -> None:
    """As a terminal has it: the command writes into the folder of whoever typed it, and a new bash reads that."""
    command = Path(sys.executable).with_name("activedpo")
    if not shutil.which("bash") or not command.exists():
        pytest.skip("needs bash, and the command beside Python")
    paths = os.pathsep.join([str(command.parent), os.environ["PATH"]])
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": paths}
    subprocess.run(
        ["bash", "-c", "activedpo --install-completion; true"], env=environment, check=True, capture_output=True
    )
    assert "bash_completions/activedpo.sh" in (tmp_path / ".bashrc").read_text()
    found = subprocess.run(["bash", "-c", ASKED], env=environment, check=True, capture_output=True, text=True)
    assert found.stdout == "offered: activedpo\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_a_shell_is_to_read(shell: str) -> None:
    """The text that `--show-completion` prints calls the command by the variables that it reads."""
    result = CliRunner().invoke(app, [], prog_name="activedpo", env={"_ACTIVEDPO_COMPLETE": f"source_{shell}"})
    assert result.exit_code == 0
    assert f"_ACTIVEDPO_COMPLETE=complete_{shell}" in result.stdout
    assert "activedpo" in result.stdout
