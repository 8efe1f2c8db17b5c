"""What a stage command does with what it finds: every row of the state table."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import STAGES, activedpo, done, make_partial, manifest, on, outputs, refused, snapshot, without

from activedpo_cli.store.manifest import read_manifest, write_manifest

OTHER_SETTINGS = {
    "generate": ("--temperature", "0.5"),
    "featurize": ("--proj-dim", "32"),
    "select": ("--budget", "3"),
    "label": ("--answer", "bradley-terry"),
    "train": ("--beta", "0.3"),
    "evaluate": ("--num-responses", "3"),
}
LOST = {
    "generate": ["responses-00001.jsonl"],
    "featurize": ["features-00002.safetensors", "rows.jsonl"],
    "select": ["scores.safetensors"],
    "label": ["outcomes.jsonl"],
    "train": ["adapter", "metrics.jsonl"],
    "evaluate": ["responses-00001.jsonl", "samples.jsonl"],
}


def test_nothing_there_runs(new_run: Path) -> None:
    result = done(*on(new_run, "generate"))
    assert result.stdout.strip() == str(new_run / "iter-001" / "generate")
    assert manifest(new_run, 1, "generate")["outputs"]["responses-00002.jsonl"]["rows"] == 6


@pytest.mark.parametrize("stage", STAGES)
def test_part_of_it_is_completed(finished: Path, stage: str) -> None:
    expected, before = outputs(finished, 2, stage), snapshot(finished)
    folder = make_partial(finished, 2, stage, *LOST[stage])
    done(*on(finished, stage, iteration=2))
    assert outputs(finished, 2, stage) == expected
    assert not (folder / "started.json").exists()
    assert manifest(finished, 2, stage)["execution"]["resumed"] is True
    kept = [name for name in expected if name.startswith(("responses-", "features-")) and name not in LOST[stage]]
    assert len(kept) >= {"generate": 2, "featurize": 3, "evaluate": 1}.get(stage, 0)
    for name in kept:
        path = f"iter-002/{stage}/{name}"
        assert snapshot(finished)[path] == before[path], "a unit that was there has been made again"


def test_interrupted_labelling_buys_only_the_missing_answers(finished: Path) -> None:
    expected = outputs(finished, 2, "label")
    folder = make_partial(finished, 2, "label", "outcomes.jsonl", "preferences.jsonl")
    lines = (folder / "labels.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "labels.jsonl").write_bytes(lines[0] + lines[1][:20])  # the second was being written
    result = done(*on(finished, "label"))
    after = (folder / "labels.jsonl").read_bytes().splitlines(keepends=True)
    assert "20 bytes" in result.stderr
    assert (len(after), after[0]) == (len(lines), lines[0])
    assert (folder / "labels.torn").read_bytes() == lines[1][:20]
    assert outputs(finished, 2, "label") == expected


@pytest.mark.parametrize("stage", STAGES)
def test_finished_is_up_to_date_and_untouched(finished: Path, stage: str) -> None:
    def everything() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in [finished, *finished.rglob("*")]}

    files, times = snapshot(finished), everything()
    for iteration in (1, 2):
        result = done(*on(finished, stage, iteration=iteration))
        assert "up to date" in result.stderr
        assert result.stdout.strip() == str(finished / f"iter-{iteration:03d}" / stage)
    assert (snapshot(finished), everything()) == (files, times)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("state", ["finished", "partial"])
def test_another_setting_is_refused(finished: Path, stage: str, state: str) -> None:
    if state == "partial":
        make_partial(finished, 2, stage)
    before = snapshot(finished)
    flag, value = OTHER_SETTINGS[stage]
    message = refused(3, *on(finished, stage, iteration=2), flag, value)
    key = f"{stage}.{flag.removeprefix('--').replace('-', '_')}"
    old = manifest(finished, 1, stage)["settings"][key]
    assert f"{key}  {old} → {value}" in message
    assert f"activedpo {stage} --run {finished} --iteration 2 {flag} {value} --force" in message
    assert snapshot(finished) == before


def test_the_hint_of_a_refusal_does_what_was_asked_for(finished: Path) -> None:
    message = refused(3, *on(finished, "select", iteration=2), "--budget", 3)
    command = re.search(r"`(activedpo select .*--force)`", message)
    assert command is not None
    done(*shlex.split(command[1])[1:])
    assert manifest(finished, 2, "select")["settings"]["select.budget"] == 3


def test_the_same_setting_given_again_is_up_to_date(finished: Path) -> None:
    before = snapshot(finished)
    done(*on(finished, "generate"), "--num-prompts", 6, "--temperature", "1")
    done(*on(finished, "featurize"), "--lora-modules", "v_proj,q_proj,o_proj,k_proj")
    done(*on(finished, "select"), "--ridge", "0.1", "--method", "activedpo")
    assert snapshot(finished) == before


def test_changed_inputs_are_refused_until_forced(finished: Path) -> None:
    old = outputs(finished, 2, "generate")
    done(*on(finished, "generate", iteration=2), "--force", "--temperature", "0.7")
    assert outputs(finished, 2, "generate") != old
    kept = list((finished / ".stale").glob("iter-002-generate-*"))
    assert len(kept) == 1
    assert {name: snapshot(kept[0])[name][0] for name in old} == old

    before = snapshot(finished)
    message = refused(3, *on(finished, "featurize", iteration=2))
    assert "input iter-002/generate" in message
    assert snapshot(finished) == before
    assert "! featurize iter-002 is stale" in done(*on(finished, "status")).stdout

    first = without(snapshot(finished), "iter-002", ".stale", "config.yaml")
    for stage in STAGES[1:]:
        refused(3, *on(finished, stage, iteration=2))
        done(*on(finished, stage, iteration=2), "--force")
    assert {path.name.split("-")[2] for path in (finished / ".stale").iterdir()} == set(STAGES)
    assert without(snapshot(finished), "iter-002", ".stale", "config.yaml") == first
    assert not list(finished.glob("iter-002/.*"))
    assert "stale" not in done(*on(finished, "status")).stdout.replace(".stale", "")


def test_force_with_nothing_changed_makes_the_same(finished: Path) -> None:
    expected = outputs(finished, 2, "featurize")
    done(*on(finished, "featurize", iteration=2), "--force")
    assert outputs(finished, 2, "featurize") == expected
    assert "up to date" in done(*on(finished, "select", iteration=2)).stderr


def test_labels_that_force_replaces_are_kept(finished: Path) -> None:
    paid = (finished / "iter-002" / "label" / "labels.jsonl").read_bytes()
    done(*on(finished, "label", iteration=2), "--force", "--answer", "bradley-terry")
    (kept,) = (finished / ".stale").glob("iter-002-label-*")
    assert (kept / "labels.jsonl").read_bytes() == paid


def test_a_missing_stage_names_a_command_that_works(new_run: Path) -> None:
    """Follow the hints from the end of an iteration to its beginning and back."""
    wanted = on(new_run, "evaluate")
    ran: list[str] = []
    for _ in range(40):
        words = wanted
        while (result := activedpo(*words)).exit_code == 4:
            hint = result.stderr.partition("hint: ")[2].strip()
            assert hint.startswith("activedpo ")
            words = tuple(shlex.split(hint)[1:])
        assert result.exit_code == 0, result.output
        ran.append(str(words[0]))
        if words == wanted:
            break
    assert ran == list(STAGES)


def test_the_next_iteration_waits_for_training(new_run: Path) -> None:
    message = refused(4, *on(new_run, "generate", iteration=2))
    assert f"activedpo train --run {new_run} --iteration 1" in message
    assert not (new_run / "iter-002").exists()


def test_another_process_is_named(new_run: Path) -> None:
    hold = (
        "import sys; from pathlib import Path; from activedpo_cli.store.lock import exclusive\n"
        "with exclusive(Path(sys.argv[1]), 'x'): print('held', flush=True); sys.stdin.read()"
    )
    lock = new_run / ".locks" / "iter-001-generate.lock"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        message = refused(75, *on(new_run, "generate"))
        assert f"process {holder.pid} " in message
        assert not (new_run / "iter-001").exists()
        holder.kill()  # the kernel gives the lock back
        holder.wait()
    done(*on(new_run, "generate"))


def test_iteration_defaults_to_the_newest(finished: Path) -> None:
    assert done(*on(finished, "featurize")).stdout.strip() == str(finished / "iter-002" / "featurize")
    assert "--iteration 3" in done(*on(finished, "evaluate")).stderr


@pytest.mark.parametrize(
    ("stage", "key", "flag"), [("select", "select.history", "frozen"), ("label", "label.noise", 0.3)]
)
def test_a_setting_that_an_older_record_lacks_had_its_default(finished: Path, stage: str, key: str, flag: Any) -> None:
    folder = finished / "iter-002" / stage
    record = read_manifest(folder)
    assert record is not None
    settings = {name: value for name, value in record.settings.items() if name != key}
    write_manifest(folder, record.model_copy(update={"settings": settings}))
    assert key in refused(3, *on(finished, stage, iteration=2), "--set", f"{key}={flag}")
    assert "up to date" in done(*on(finished, stage, iteration=2)).stderr
