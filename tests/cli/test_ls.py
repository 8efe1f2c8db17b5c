"""`activedpo ls`: what there is to choose from."""

import json
import os
import re
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from command_line import done, on, refused

import activedpo_cli
from activedpo_cli.base import discovery
from activedpo_cli.experiments.spec import built_in_specs
from activedpo_cli.run.listing import listed_runs


def mark_of(entry: dict[str, Any]) -> str:
    """One star for one pair a prompt, two for any other settings."""
    return "*" if entry["settings"] == {"select.max_per_prompt": 1} else "**" if entry["settings"] else ""


def test_methods_are_listed_with_what_they_need() -> None:
    """As their modules say when they are imported, though listing imports none."""
    shown = json.loads(done("ls", "methods", "--json").stdout)
    names = discovery.available("acquisition")
    assert {name: row["help"] for name, row in shown.items()} == names
    for name in names:
        assert shown[name]["needs"] == list(discovery.load("acquisition", name).NEEDS)
    line = next(line for line in done("ls", "methods").stdout.splitlines() if line.startswith("adpo "))
    assert "hidden, logps, ref_logps" in line


def evidence() -> list[dict[str, Any]]:
    """What comes with the package, which tests/test_results_pages.py holds against the results."""
    return json.loads((Path(activedpo_cli.__file__).parent / "run/evidence.json").read_text(encoding="utf-8"))["found"]


def paragraph(shown: str, name: str) -> str:
    """What is said of one method, as one line."""
    (found,) = re.findall(rf"^{name}  needs .*\n((?:    .*\n)+)", shown, re.MULTILINE)
    return " ".join(found.split())


def test_methods_are_listed_with_what_is_known_of_them() -> None:
    """Better is said of a method where its experiments say so, and of nothing else; a mark says that it was not as it is."""
    shown, as_json = done("ls", "methods").stdout, json.loads(done("ls", "methods", "--json").stdout)
    for name, row in as_json.items():
        known = [entry for entry in evidence() if entry["method"] == name]
        assert row["evidence"] == known
        said = paragraph(shown, name)
        assert ("no evidence" in said) == (not known and name != "random")
        better = re.search("(?<!perhaps )better than random on ([^;]*)", said)
        named = set(re.findall(r"(?:^|, )([^,(]+?)(?: \(\d+ %\))?(?=,|$)", better[1])) if better else set()
        as_it_is = {entry["task"] for entry in known if not entry["settings"]}
        told = [entry for entry in known if mark_of(entry) != "*" or entry["task"] not in as_it_is]
        assert named == {entry["task"] + mark_of(entry) for entry in told if entry["verdict"] == "yes"}
    assert "docs/results.md" in shown
    gap = next(e for e in evidence() if (e["method"], e["task"], e["settings"]) == ("reward-gap", "stories", {}))
    assert f"stories ({100 * gap['share'][0]:.0f} %)" in paragraph(shown, "reward-gap")
    assert max(map(len, shown.splitlines())) <= 100


def test_all_numbers_of_the_evidence() -> None:
    shown = done("ls", "methods", "--evidence").stdout
    lines = [re.split(r" {2,}", line.rstrip()) for line in shown.splitlines()]
    for entry in evidence():
        others = "".join(f", {key.split('.')[-1]} {json.dumps(value)}" for key, value in entry["settings"].items())
        name = entry["method"] + (others if mark_of(entry) == "**" else mark_of(entry))
        (row,) = [line for line in lines if line[:2] == [name, entry["task"]]]
        assert row[2:4] == [str(entry["seeds"]), entry["verdict"]]
        if entry["share"]:
            assert row[4].split()[0].replace("−", "-") == str(round(100 * entry["share"][0]))
    assert re.search(r"^no evidence yet.*badge", shown, re.MULTILINE)
    assert "has no evidence" in refused(2, "ls", "oracles", "--evidence")


def test_a_method_of_another_package_has_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("my_method", "activedpo_cli.select.methods.random", "activedpo.acquisition")
    monkeypatch.setattr(discovery, "_entry_points", lambda folder: (entry,) if folder == "acquisition" else ())
    assert "no evidence" in paragraph(done("ls", "methods").stdout, "my-method")
    assert re.search(
        r"^no evidence yet.*my-method", done("ls", "methods", "--evidence").stdout.replace(",\n", ", "), re.MULTILINE
    )
    assert json.loads(done("ls", "methods", "--json").stdout)["my-method"]["evidence"] == []


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
