"""Two commands on one run, a run that moves, and inputs that change under a command's hands."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from command_line import STAGES, all_outputs, done, manifest, on, refused, rows, snapshot

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.store.run import Run
from activedpo_cli.train import step as train

CHANGES = {
    "generate": "generate.temperature=0.7",
    "featurize": "featurize.tokens_per_batch=999",
    "select": "select.budget=3",
    "label": "label.unit_size=7",
    "train": "train.beta=0.3",
    "evaluate": "evaluate.num_responses=5",
}
SELF_EDITING = """
def score(prompts, responses):
    with open(__file__, "a") as stream:
        stream.write("# and more\\n")
    return [float(len(response)) for response in responses]
"""


def command(*words: object, **streams: Any) -> "subprocess.Popen[str]":
    typed = [str(word) for word in words]
    return subprocess.Popen([sys.executable, "-m", "activedpo_cli", *typed], text=True, env=os.environ, **streams)


def test_settings_given_by_many_commands_at_once_are_all_kept(finished: Path) -> None:
    """Each names a stage that is finished and a setting of another, which is for iterations to come."""
    others = dict(zip(STAGES, [CHANGES[name] for name in (*STAGES[1:], STAGES[0])], strict=True))
    commands = [
        command(*on(finished, stage, iteration=2), "--set", text, "--quiet", stderr=subprocess.PIPE)
        for stage, text in others.items()
    ]
    told = [process.communicate(timeout=120)[1] for process in commands]
    assert [process.returncode for process in commands] == [0] * len(commands), told
    config = Run(finished).config
    for text in others.values():
        key, _, value = text.partition("=")
        section, _, name = key.partition(".")
        assert getattr(getattr(config, section), name) == json.loads(value)
    assert "# " in Run(finished).config_text


def test_a_command_that_fails_leaves_what_another_has_set(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failing takes its own settings back, which may be why, where nobody has changed any since."""
    shutil.rmtree(finished / "iter-002" / "train")

    def fail(*_: Any, **__: Any) -> Any:
        if others:
            Run(finished).change_config(others)
        raise ActiveDPOError("no")

    monkeypatch.setattr(train, "_examples", lambda context: [None])
    monkeypatch.setattr(train, "load_policy", fail)
    before = Run(finished).config_text
    others: dict[str, int] = {}
    refused(1, *on(finished, "train", iteration=2), "--beta", 0.7)
    assert Run(finished).config_text == before
    others = {"evaluate.num_responses": 5}
    refused(1, *on(finished, "train", iteration=2), "--beta", 0.7)
    assert Run(finished).config.evaluate.num_responses == 5


def test_what_another_set_in_between_is_no_part_of_a_change(finished: Path) -> None:
    run = Run(finished)
    original = run.config_text
    Run(finished).change_config({"train.beta": 0.77})
    before, after = run.change_config({"train.learning_rate": 0.5})
    assert before != original
    run.restore_config(after, before)
    assert run.config.train.beta == 0.77
    assert run.change_config({}) == (before, before)


@contextmanager
def sitting(run: Path) -> Iterator["subprocess.Popen[str]"]:
    """A person who labels."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with command(*on(run, "label", iteration=2), "--oracle", "human", **pipes) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write("t\n")
        session.stdin.flush()
        while "saved" not in session.stdout.readline():
            assert session.poll() is None
        yield session


def test_while_a_person_labels(finished: Path) -> None:
    """Nobody else labels, trains on half of it or makes it again; what has nothing to do with it goes on."""
    for stage in STAGES[3:]:
        shutil.rmtree(finished / "iter-002" / stage)
    features = all_outputs(finished)["iter-002/featurize"]
    log = finished / "iter-002" / "label" / "labels.jsonl"
    with sitting(finished) as session:
        words = on(finished, "label", iteration=2)
        for again in (words, (*words, "--force"), (*words, "--accept-partial"), (*on(finished, "run"), "--no-report")):
            assert f"process {session.pid} " in refused(75, *again)
        refused(4, *on(finished, "train", iteration=2))
        done(*on(finished, "featurize", iteration=2), "--force", "--quiet")
        assert all_outputs(finished)["iter-002/featurize"] == features
        assert json.loads(done(*on(finished, "status"), "--json").stdout)
        assert len(rows(log)) == 1
        _, said = session.communicate("t\nt\nt\n", timeout=60)
    assert session.returncode == 0, said
    assert [row["sequence"] for row in rows(log)] == [0, 1, 2, 3]


def test_a_run_that_was_moved_and_touched_is_what_it_was(finished: Path, tmp_path: Path) -> None:
    """As after `mv`, `rsync` without times, or a clock that was set back."""
    before = {name: digest for name, (digest, _) in snapshot(finished).items()}
    moved = finished.rename(tmp_path / "elsewhere")
    for number, path in enumerate(sorted(moved.rglob("*"), reverse=True)):
        os.utime(path, (10**9 + number, 10**9 - number))
    times = {path: path.stat().st_mtime_ns for path in moved.rglob("*") if path.is_file()}
    done(*on(moved, "run"), "--iterations", 2, "--no-report", "--quiet")
    for stage in STAGES:
        assert "up to date" in done(*on(moved, stage, iteration=2)).stderr
    assert {name: digest for name, (digest, _) in snapshot(moved).items()} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_an_oracle_edited_while_it_answers_is_told_afterwards(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recorded is the file as it was before."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "self_editing.py"
    path.write_text(SELF_EDITING)
    original = sha256(path.read_bytes()).hexdigest()
    words = (*on(finished, "label", iteration=2), "--oracle", "python:self_editing:score")
    done(*words, "--force")
    assert path.read_text().endswith("# and more\n")
    assert original in str(manifest(finished, 2, "label")["inputs"])
    status = json.loads(done(*on(finished, "status"), "--json").stdout)
    assert status["iterations"][1]["stages"]["label"]["state"] == "stale"
    assert "python:self_editing:score" in refused(3, *words)


def test_examples_added_while_they_are_learnt_are_told_afterwards(
    new_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from activedpo_cli.train import sft_step as sft

    data = tmp_path / "examples.jsonl"
    row = json.dumps({"prompt": "Say:", "completion": " so."}) + "\n"
    data.write_text(row * 4)
    original = sha256(data.read_bytes()).hexdigest()
    real = sft._loss_before

    def edited(*args: Any) -> Any:
        with data.open("a") as stream:
            stream.write(row)
        return real(*args)

    monkeypatch.setattr(sft, "_loss_before", edited)
    done(*on(new_run, "sft"), "--data", data, "--epochs", 1, "--quiet")
    record = json.loads((new_run / "reference" / "sft" / "manifest.json").read_bytes())
    assert record["inputs"]["data"] == f"sha256:{original}"
    assert "input data" in refused(3, *on(new_run, "sft"))
