"""`activedpo ls`: what there is to choose from."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command_line import done, on, refused

from activedpo_cli.base import discovery
from activedpo_cli.experiments.spec import built_in_specs
from activedpo_cli.run.listing import listed_runs


def test_methods_are_listed_with_what_they_need() -> None:
    """As their modules say when they are imported, though listing imports none."""
    shown = json.loads(done("ls", "methods", "--json").stdout)
    names = discovery.available("acquisition")
    assert {name: row["help"] for name, row in shown.items()} == names
    for name in names:
        assert shown[name]["needs"] == list(discovery.load("acquisition", name).NEEDS)
    line = next(line for line in done("ls", "methods").stdout.splitlines() if line.startswith("adpo "))
    assert "hidden, logps, ref_logps" in line


def test_experiments_are_listed() -> None:
    assert json.loads(done("ls", "experiments", "--json").stdout) == built_in_specs()
    assert "table-1-tiny" in done("ls", "experiments").stdout


def test_without_a_word_it_names_what_else_can_be_listed() -> None:
    alone = done("ls")
    assert alone.stdout == done("ls", "methods").stdout
    for kind in ("oracles", "prompts", "models", "presets", "experiments"):
        assert kind in alone.stderr
        assert done("ls", kind).stdout
    assert done("ls", "methods").stderr == ""


@pytest.mark.parametrize("word", ["methodes", "experiment"])
def test_an_unknown_word_is_answered_with_the_known_ones(word: str) -> None:
    known = "known: methods, oracles, prompts, datasets, formats, exporters, models, presets, experiments, runs"
    assert known in refused(2, "ls", word)


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    """A folder with a finished run, one that stands before *train*, a damaged one, and a run of an experiment."""
    place = tmp_path / "all of them"
    for name in ("a", "b", "broken", "exp/runs/random-s0"):
        shutil.copytree(finished, place / name)
    for stage in ("train", "evaluate"):
        shutil.rmtree(place / "b/iter-002" / stage)
    shutil.rmtree(place / "b/iter-001/featurize")  # as is done to save space
    (place / "broken/run.json").write_text("{")
    (place / "exp/experiment.json").write_text("{}")
    (place / "notes").mkdir()
    (place / ".locks").mkdir()
    return place


def test_runs_are_listed_with_how_far_they_are(place: Path) -> None:
    os.utime(place / "b/iter-002/label/manifest.json", (4e9, 4e9))
    found = {row["name"]: row for row in json.loads(done("ls", "runs", place, "--json").stdout)["runs"]}
    assert list(found) == ["a", "b", "broken", "random-s0"]
    for name in ("a", "b"):
        status = json.loads(done(*on(place / name, "status"), "--json").stdout)
        assert found[name]["labels_spent"] == status["labels_spent"] == 8
        assert found[name]["model"] == status["model"]
    told = ("iterations_done", "iterations_planned", "next", "experiment", "problem")
    assert [found["a"][key] for key in told] == [2, 2, None, None, None]
    assert [found["b"][key] for key in told] == [1, 2, "train iter-002", None, None]
    assert [found["random-s0"][key] for key in told] == [2, 2, None, "exp", None]
    assert found["b"]["changed"] == "2096-10-02T07:06:40+00:00"
    assert "run.json" in found["broken"]["problem"]


def test_the_list_of_runs_for_people(place: Path) -> None:
    shown = done("ls", "runs", place)
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["experiment", "exp"] in lines
    assert next(line for line in lines if line[:1] == ["b"])[2:7] == ["1", "of", "2", "train", "iter-002"]
    assert "broken/run.json" in shown.stderr


def test_a_run_that_goes_on_without_a_plan(place: Path) -> None:
    (place / "a/loop.json").unlink()
    (place / "b/iter-002/train").mkdir()
    (place / "b/iter-002/train/started.json").write_text("{}")
    found = {row["name"]: row for row in json.loads(done("ls", "runs", place, "--json").stdout)["runs"]}
    assert (found["a"]["next"], found["a"]["is_begun"]) == ("generate iter-003", False)
    assert (found["b"]["next"], found["b"]["is_begun"]) == ("train iter-002", True)


def test_a_folder_without_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no folder `runs`" in refused(4, "ls", "runs")
    assert json.loads(done("ls", "runs", tmp_path, "--json").stdout)["runs"] == []
    assert "ls runs FOLDER" in refused(2, "ls", "methods", tmp_path)


@pytest.mark.parametrize("spent", [None, "x"])
def test_a_run_with_a_damaged_summary_leaves_the_others_listed(finished: Path, tmp_path: Path, spent: object) -> None:
    for name in ("a", "b"):
        shutil.copytree(finished, tmp_path / "all" / name)
    path = tmp_path / "all/a/iter-001/label/manifest.json"
    record = json.loads(path.read_text())
    record["summary"]["labels_spent"] = spent
    path.write_text(json.dumps(record))
    whole = {run.name: run.problem for run in listed_runs(tmp_path / "all")}
    assert whole["a"]
    assert whole["b"] is None
