"""Which folder `--run` means."""

from pathlib import Path

import pytest

from activedpo_cli.store.run import run_path


def test_a_name_and_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path keeps its meaning where it is written out again, as in the command that goes on."""
    monkeypatch.chdir(tmp_path)
    assert run_path("here") == Path("runs/here")
    assert run_path("some/here") == Path("some/here")
    for text in ("./here", "./here/", "././here"):
        assert run_path(text) == tmp_path / "here"
        assert run_path(str(run_path(text))) == tmp_path / "here"
