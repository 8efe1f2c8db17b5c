"""A whole loop in a process of its own: it speaks to nobody, and its files have the modes that the umask leaves them."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import RULE, all_outputs, done, on
from small_runs import SMALL

pytestmark = pytest.mark.whole

WATCH = """
import gc, os, sys

gc.set_threshold(50_000, 20, 20)  # as in the `sitecustomize.py` whose place this takes

def heard(event, details):
    if event.split(".")[0] in ("socket", "urllib", "http", "ftplib", "smtplib") and event not in ALONE:
        with open(os.environ["HEARD"], "a") as stream:
            stream.write(f"{event} {details}\\n")
        raise OSError("no network here")

ALONE = {"socket.__new__", "socket.gethostname", "socket.bind"}  # nothing leaves the machine
sys.addaudithook(heard)
"""


@pytest.mark.parametrize(
    "umask", [0o027, *(pytest.param(mask, marks=pytest.mark.slow) for mask in (0o022, 0o077, 0o002))]
)
def test_two_iterations_from_a_local_model(tmp_path: Path, small_model: Path, prompts_file: Path, umask: int) -> None:
    """Every stage, a reward model, the report and the export; the hub is not switched off, and not asked either.

    A process whose hashes begin with another seed makes the same bytes, from the initial adapter on.
    """
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(WATCH)
    run, folder = tmp_path / "runs" / "alone", tmp_path / "here"
    folder.mkdir()
    settings = SMALL | {
        "label.oracle": RULE,
        "evaluate.second_scorer": "reward-model:tiny",
        "sft.data": str(prompts_data(folder)),
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    given = ["--model", small_model, "--prompts", prompts_file, "--eval-prompts", 4, "--iterations", 2, "--quiet"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    result = subprocess.run(
        [sys.executable, "-m", "activedpo_cli", "run", "--run", run, *map(str, given), *words],
        cwd=folder,
        env=kept | {
            "HEARD": str(tmp_path / "heard"), "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1",
            "HF_HOME": str(tmp_path / "hub"), "HF_TOKEN": "hf_" + "Secret1" * 5,
            "PYTHONPATH": os.pathsep.join([str(tmp_path / "path"), os.environ["PYTHONPATH"], os.getcwd()]),
        },
        umask=umask, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "heard").exists(), (tmp_path / "heard").read_text()
    assert (run / "iter-002" / "evaluate" / "manifest.json").is_file()
    assert (run / "report" / "index.html").is_file()
    for path in [tmp_path / "runs", *(tmp_path / "runs").rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o777 if path.is_dir() else 0o666) & ~umask, f"{path} has {mode:o}"
        assert path.is_dir() or b"Secret1Secret1" not in path.read_bytes()
    made = all_outputs(run)
    for path in (run / "iter-001", run / "iter-002", run / "reference" / "initial-adapter"):
        shutil.rmtree(path)
    done(*on(run, "run"), "--iterations", 1, "--no-report", "--quiet")
    again = all_outputs(run)
    assert {"reference/initial-adapter", "iter-001/featurize", "iter-001/train"} <= again.keys()
    assert again == {name: made[name] for name in again}


def prompts_data(folder: Path) -> Path:
    """Examples to learn first."""
    path = folder / "examples.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{n}?", "completion": f"{n}!"}) + "\n" for n in range(6)))
    return path


def test_the_watch_hears(tmp_path: Path) -> None:
    """Else silence would prove nothing."""
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    for call in ("socket.getaddrinfo('example.com', 80)", "socket.create_connection(('127.0.0.1', 9))"):
        result = subprocess.run(
            [sys.executable, "-c", f"import socket; {call}"], capture_output=True, text=True, check=False,
            env={**os.environ, "HEARD": str(tmp_path / "heard"), "PYTHONPATH": str(tmp_path)},
        )  # fmt: skip
        assert "no network here" in result.stderr
    assert len((tmp_path / "heard").read_text().splitlines()) == 2
