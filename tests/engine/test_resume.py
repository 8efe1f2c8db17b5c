"""What the engine makes of an earlier version's work, and of an interrupt before anything was made."""

import json
from pathlib import Path

import pytest
from command_line import activedpo, done, manifest, on, refused


def test_work_of_another_version_is_told_and_made_again_only_by_force(finished: Path) -> None:
    path = finished / "iter-002" / "select" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"stage_version": 0}))
    assert "version of the stage  0 → 1" in refused(3, *on(finished, "select", iteration=2))
    state = json.loads(done("status", "--run", finished, "--json").stdout)["iterations"][1]["stages"]["select"]
    assert (state["state"], state["reasons"]) == ("stale", ["version of the stage  0 → 1"])
    done(*on(finished, "select", iteration=2), "--force")
    assert manifest(finished, 2, "select")["stage_version"] == 1


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError])
def test_an_end_before_anything_was_made_takes_its_flags_back(
    finished: Path, end: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise end

    done(*on(finished, "generate", iteration=3))
    done(*on(finished, "featurize", iteration=3))
    before = (finished / "config.yaml").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("activedpo_cli.select.step.candidate_table", fail)
        patch.setenv("ACTIVEDPO_DEBUG", "")
        from typer.testing import CliRunner

        from activedpo_cli.cli.app import app

        words = [str(word) for word in on(finished, "select", iteration=3)]
        assert CliRunner().invoke(app, [*words, "--budget", "3"]).exit_code in (1, 130)
    assert (finished / "config.yaml").read_bytes() == before
    assert not (finished / "iter-003" / "select").exists()
    assert activedpo(*on(finished, "select", iteration=3), "--budget", 2).exit_code == 0
    assert "budget: 2" in (finished / "config.yaml").read_text()
