"""`--version` says which commit it is, of a checkout or of what was built from one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import done

from activedpo_cli.base import version


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """One commit of a package of one file."""
    if not shutil.which("git"):
        pytest.skip("needs git")
    package = tmp_path / "clone" / "package" / "base"
    package.mkdir(parents=True)
    (package / "version.py").write_text("")
    name = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "."), (*name, "commit", "-qm", "first")):
        subprocess.run(["git", *words], cwd=tmp_path / "clone", check=True)
    return tmp_path / "clone"


def test_of_a_checkout(checkout: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert version.commit_of(checkout) == head[:10]
    here = checkout / "package" / "base"
    assert version.described(here) == f"{version.__version__} (commit {head[:10]})"
    (here / "version.py").write_text("x = 1\n")
    assert version.commit_of(checkout) == f"{head[:10]}, changed since"


def test_within_the_checkout_of_something_else_there_is_none(checkout: Path) -> None:
    installed = checkout / ".venv" / "package" / "base"
    installed.mkdir(parents=True)
    assert version.described(installed) == version.__version__
    (installed / version.BUILT_FROM).write_text("1a2b3c4d5e\n")
    assert version.described(installed) == f"{version.__version__} (commit 1a2b3c4d5e)"


def test_without_git_there_is_none(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert version.commit_of(checkout) is None


def test_the_command_says_it() -> None:
    assert re.fullmatch(
        r"activedpo \d+\.\d+\.\d+( \(commit [0-9a-f]{10}(, changed since)?\))?\n", done("--version").stdout
    )
