"""Commands hide the package `kernels`, by which libraries would fetch code from the hub; whoever imports ours keeps it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import sys
from activedpo_cli.__main__ import main
sys.argv = ["activedpo", "--version"]
try:
    main()
except SystemExit:
    pass
"""
WORKER = """
import os, sys
os._exit = lambda code: None
from activedpo_cli.train.worker import main
sys.argv = ["worker", "{folder}"]
main()
"""


@pytest.mark.parametrize(
    ("before", "is_found"),
    [("import activedpo_cli", True), (COMMAND, False), (WORKER, False)],
    ids=["ours", "cli", "worker"],
)
def test_who_finds_kernels(tmp_path: Path, before: str, is_found: bool) -> None:
    (tmp_path / "kernels.py").write_text("")
    code = (
        before.format(folder=tmp_path)
        + "\nimport importlib.util as u; raise SystemExit(u.find_spec('kernels') is None)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if is_found else 1), done.stderr
    assert "Traceback" not in done.stderr


def test_kernels_that_are_loaded_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    from activedpo_cli.base.hub_code import fetch_no_code

    loaded = object()
    monkeypatch.setitem(sys.modules, "kernels", loaded)
    fetch_no_code()
    assert sys.modules["kernels"] is loaded
