"""A person's own code inside a command: it can neither end it as though all were done nor print into its results."""

import json
from pathlib import Path

import pytest
from command_line import done, on, refused


def test_an_oracle_that_leaves(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leaving.py").write_text("import sys\ndef score(prompts, responses):\n    sys.exit()\n")
    words = (*on(finished, "label", iteration=2), "--force", "--oracle", "python:leaving:score")
    assert "`python:leaving:score` failed" in refused(1, *words)
    assert json.loads(done(*on(finished, "status"), "--json").stdout)["iterations"][1]["stages"]["label"]["state"] == (
        "complete"
    )


def test_what_an_oracle_prints(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talking.py").write_text(
        "print('loaded')\ndef score(prompts, responses):\n    print('asked')\n    return [len(r) for r in responses]\n"
    )
    told = done(*on(finished, "label", iteration=2), "--force", "--oracle", "python:talking:score", "--json")
    assert json.loads(told.stdout)["stage"] == "label"
    assert "loaded" in told.stderr
    assert "asked" in told.stderr


def test_code_of_others_that_leaves_is_no_success(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(run: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr("activedpo_cli.run.status.run_status", leave)
    assert "called `sys.exit(0)`" in refused(1, *on(finished, "status"))
