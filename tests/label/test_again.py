"""A label command typed again after it has done its work, or all but its last write, ends as well as it did before."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from command_line import STAGES, activedpo, done, manifest, on, refused, rows, snapshot

from activedpo_cli.base.tables import read_table


@pytest.fixture
def asked(finished: Path) -> Path:
    """A run whose second iteration waits for people: 4 pairs."""
    for stage in STAGES[3:]:
        shutil.rmtree(finished / "iter-002" / stage)
    return finished


def label(run: Path, *words: object, typed: str = ""):
    return activedpo(*on(run, "label", iteration=2), "--oracle", "human", *words, typed=typed)


def exported(run: Path, path: Path) -> list[dict]:
    assert label(run, "--export", path).exit_code == 5
    return rows(path)


def answer(path: Path, found: list[dict], *answers: str) -> None:
    for row, text in zip(found, answers, strict=True):
        row["preference"] = text
    path.write_text("".join(json.dumps(row) + "\n" for row in found))


@pytest.fixture
def closed(asked: Path, tmp_path: Path) -> tuple[Path, Path, list[dict]]:
    """The run, closed by a file with four answers, the file and its rows."""
    path = tmp_path / "pairs.jsonl"
    found = exported(asked, path)
    answer(path, found, "a", "b", "skip", "tie")
    assert label(asked, "--import", path).exit_code == 0
    return asked, path, found


def test_answers_that_stand_are_imported_again_without_a_trace(closed: tuple[Path, Path, list[dict]]) -> None:
    run, path, found = closed
    before = snapshot(run)
    assert "all 4 answers" in done(*on(run, "label", iteration=2), "--import", path).stderr
    answer(path, found, "A", "b", "", "")  # fewer of them, spelled otherwise
    assert "all 2 answers" in done(*on(run, "label", iteration=2), "--import", path).stderr
    assert json.loads(done(*on(run, "label", iteration=2), "--import", path, "--json").stdout)["state"] == "up to date"
    assert snapshot(run) == before


def test_answers_that_differ_from_what_stands_are_refused_by_pair(closed: tuple[Path, Path, list[dict]]) -> None:
    run, path, found = closed
    before = snapshot(run)
    answer(path, found, "a", "a", "tie", "tie")
    said = refused(3, *on(run, "label", iteration=2), "--import", path)
    assert f"`{found[1]['pair_id']}`: {found[1]['response_b_id']} → {found[1]['response_a_id']}" in said
    assert f"`{found[2]['pair_id']}`: skip → tie" in said
    assert found[0]["pair_id"] not in said
    assert snapshot(run) == before


def test_killed_before_the_stage_was_closed(closed: tuple[Path, Path, list[dict]]) -> None:
    """Every answer was stored, and the record of the stage was not."""
    run, path, _ = closed
    folder = run / "iter-002" / "label"
    record = manifest(run, 2, "label")
    identity = ("schema", "stage", "stage_version", "iteration", "settings", "inputs", "execution")
    (folder / "started.json").write_text(json.dumps({key: record[key] for key in identity}))
    (folder / "manifest.json").unlink()
    log = (folder / "labels.jsonl").read_bytes()
    done(*on(run, "label", iteration=2), "--import", path)
    assert (folder / "labels.jsonl").read_bytes() == log
    assert manifest(run, 2, "label")["outputs"] == record["outputs"]


def test_an_answer_for_a_pair_that_was_left_without_one(asked: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    found = exported(asked, path)
    answer(path, found, "a", "", "", "")
    assert label(asked, "--import", path).exit_code == 5
    for _ in range(2):
        done(*on(asked, "label", iteration=2), "--accept-partial")
    done(*on(asked, "label", iteration=2), "--import", path, "--accept-partial")
    answer(path, found, "a", "", "b", "")
    said = refused(3, *on(asked, "label", iteration=2), "--import", path)
    assert found[2]["pair_id"] in said
    assert found[0]["pair_id"] not in said


def test_a_file_that_was_written_is_not_written_again(asked: Path, tmp_path: Path) -> None:
    """Before anybody has answered, and when all is answered; other files of the name are left alone."""
    path = tmp_path / "pairs.jsonl"
    found = exported(asked, path)
    first = path.stat().st_mtime_ns
    assert exported(asked, path) == found
    assert path.stat().st_mtime_ns == first
    answer(path, found, "a", "b", "skip", "tie")
    assert f"--import {path}" in refused(2, *on(asked, "label", iteration=2), "--export", path)
    done(*on(asked, "label", iteration=2), "--import", path)
    filled = path.read_bytes()
    assert "is there already" in done(*on(asked, "label", iteration=2), "--export", path).stderr
    assert path.read_bytes() == filled
    other = tmp_path / "other.jsonl"
    other.write_text(path.read_text().replace(found[0]["pair_id"], "p999999/i001/r0-r1"))
    assert "p999999" in refused(4, *on(asked, "label", iteration=2), "--export", other)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_closed_stage_is_exported_with_the_answers_that_stand(asked: Path, tmp_path: Path, suffix: str) -> None:
    """A read: it ends well, also when it is repeated, and the file that it gives is read back without a difference."""
    first, new = tmp_path / "first.jsonl", tmp_path / f"new.{suffix}"
    found = exported(asked, first)
    for row, name in zip(found, ("ann", "ann", "bo", "bo"), strict=True):
        row |= {"annotator": name, "notes": "=sure", "seconds": 2.5}
    answer(first, found, "a", "b", "skip", "")
    label(asked, "--import", first)
    words = on(asked, "label", iteration=2)
    done(*words, "--accept-partial")
    before = snapshot(asked)
    said = done(*words, "--export", new).stderr
    assert "3 answers and 1 pair without one written to" in " ".join(said.split())
    assert "is there already" in done(*words, "--export", new).stderr
    assert "all 3 answers" in done(*words, "--import", new).stderr
    assert snapshot(asked) == before
    texts = [row.values for row in read_table(new)]
    assert sorted((row["pair_id"], row["annotator"] or "", row["notes"] or "") for row in texts) == sorted(
        (row["pair_id"], row["annotator"] if row["preference"] else "", row["notes"] if row["preference"] else "")
        for row in found
    )
    one = tmp_path / f"one.{suffix}"
    assert "2 answers and 1 pair without one written to" in done(*words, "--annotator", "ann", "--export", one).stderr
    said = " ".join(done(*words, "--export", one).stderr.split())
    assert (
        "with 3 pairs of this stage, which is closed; 1 answer that stands would go to a file of another name" in said
    )
    tasks = tmp_path / "tasks.json"
    for _ in range(2):
        assert "1 pair" in done(*words, "--export", tasks, "--format", "label-studio").stderr
    assert [task["data"]["pair_id"] for task in json.loads(tasks.read_bytes())] == [found[3]["pair_id"]]


def test_an_export_of_a_closed_stage_without_anything_left_ends_well_twice(
    closed: tuple[Path, Path, list[dict]], tmp_path: Path
) -> None:
    words = (*on(closed[0], "label", iteration=2), "--export", tmp_path / "tasks.json", "--format", "label-studio")
    for _ in range(2):
        assert "0 pairs without one" in done(*words).stderr


def test_an_export_that_libraries_have_rewritten_is_read_back(asked: Path, tmp_path: Path) -> None:
    """As `csv` reads and writes it, byte-order mark and all, and with the NaN of pandas where nothing was written."""
    path, nan = tmp_path / "pairs.csv", float("nan")
    label(asked, "--export", path)
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert next(iter(found[0])) == '\ufeff"pair_id"', "what the library makes of the mark"
    found[0]["preference"] = "a"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, found[0])
        writer.writeheader()
        writer.writerows(found)
    assert "1 new answer from" in label(asked, "--import", path).stderr
    left = {"annotator": nan, "seconds": nan, "notes": nan}
    again = [row | left | {"preference": "tie" if n == 3 else nan} for n, row in enumerate(found)]
    other = tmp_path / "pairs.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in again))
    said = label(asked, "--import", other).stderr
    assert "1 new answer from" in said
    assert "3 rows have no preference yet (lines 1, 2, 3)" in " ".join(said.split())


def test_what_a_machine_answered_is_no_answer_of_people(finished: Path, tmp_path: Path) -> None:
    assert "is closed" in refused(3, *on(finished, "label", iteration=2), "--import", tmp_path / "pairs.jsonl")
