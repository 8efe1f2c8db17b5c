"""People label through the command line: at the terminal, through files, in several sittings."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from command_line import STAGES, activedpo, done, manifest, on, outputs, refused, rows
from small_runs import pool_labelled_once
from typer.testing import CliRunner

from activedpo_cli.cli.app import app
from activedpo_cli.pairs.candidates import candidate_pairs
from activedpo_cli.store.run import Run


@pytest.fixture
def asked(finished: Path) -> Path:
    """A run whose second iteration waits for people: 4 pairs."""
    for stage in STAGES[3:]:
        shutil.rmtree(finished / "iter-002" / stage)
    return finished


def events(run: Path, iteration: int = 2) -> list[dict]:
    return rows(run / f"iter-{iteration:03d}" / "label" / "labels.jsonl")


def label(run: Path, *words: object, typed: str = ""):
    return activedpo(*on(run, "label", iteration=2), "--oracle", "human", *words, typed=typed)


def test_a_sitting_with_every_key(asked: Path) -> None:
    result = label(asked, "--annotator", "ann", typed="1\n2\nu\nt\nn both fine\ns\nq\n")
    assert result.exit_code == 5
    assert "1 of 4 pairs still wait" in result.stderr
    assert not (asked / "iter-002" / "label" / "manifest.json").exists()
    assert [event["event"] for event in events(asked)] == ["label", "label", "retract", "label", "label"]
    assert [event["sequence"] for event in events(asked)] == list(range(5))
    assert "partial, 3 answers so far" in done("status", "--run", asked).stdout

    before = (asked / "iter-002" / "label" / "labels.jsonl").read_bytes()
    result = label(asked, "--annotator", "ann", typed="b\n")
    assert result.exit_code == 0, result.output
    assert (asked / "iter-002" / "label" / "labels.jsonl").read_bytes().startswith(before)
    found = rows(asked / "iter-002" / "label" / "outcomes.jsonl")
    assert [row["outcome"] for row in found] == ["chosen", "tie", "skip", "both_bad"]
    selected = rows(asked / "iter-002" / "select" / "selection.jsonl")
    assert [row["pair_id"] for row in found] == [row["pair_id"] for row in selected]
    assert len(rows(asked / "iter-002" / "label" / "preferences.jsonl")) == 1
    shown = done(*on(asked, "show", found[2]["pair_id"], iteration=2), "--no-tokens").stdout
    assert re.search(r"^  ann: skip  \(selected, [0-9.]+ s\)\n    both fine$", shown, re.MULTILINE)
    assert manifest(asked, 2, "label")["summary"]["labels_spent"] == 3
    assert "up to date" in done(*on(asked, "label", iteration=2)).stderr


def test_blanks_around_a_name_make_no_other_person(asked: Path) -> None:
    assert label(asked, "--annotator", "ann", typed="t\nq\n").exit_code == 5
    assert label(asked, "--annotator", " ann\t", typed="t\nq\n").exit_code == 5
    assert [event["label"]["annotator"] for event in events(asked)] == ["ann", "ann"]
    assert "--annotator ann" in refused(2, *on(asked, "label", iteration=2), "--oracle", "human", "--annotator", " ")


def test_the_key_chooses_the_response_that_was_shown(asked: Path) -> None:
    result = label(asked, typed="1\n2\n1\n2\n")
    assert result.exit_code == 0
    texts = {
        row["response_id"]: row["text"]
        for path in (asked / "iter-002" / "generate").glob("responses-*.jsonl")
        for row in rows(path)
    }
    shown = [part.partition("\n> ")[0] for part in result.stdout.split("Response ")[1:]]
    for number, row in enumerate(rows(asked / "iter-002" / "label" / "outcomes.jsonl")):
        sides = shown[2 * number : 2 * number + 2]
        answer = number % 2
        plain = [c for c in texts[row["preferred_id"]] if c.isascii() and c.isalnum()]
        assert plain == [c for c in _unescaped(sides[answer][1:]) if c.isascii() and c.isalnum()]


def _unescaped(text: str) -> str:
    return re.sub(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}", "", text)


def test_pairs_that_were_skipped_do_not_enter_v(asked: Path) -> None:
    """Nor are they asked about again; ties and both-bad do enter."""
    label(asked, typed="1\nt\ns\nb\n")
    done(*on(asked, "train", iteration=2))
    done(*on(asked, "generate", iteration=3))
    done(*on(asked, "featurize"))
    second = rows(asked / "iter-002" / "label" / "outcomes.jsonl")
    spent = [row["pair_id"] for row in second if row["outcome"] != "skip"]
    first = [row["pair_id"] for row in rows(asked / "iter-001" / "label" / "outcomes.jsonl")]
    labelled = [row["pair_id"] for row in rows(asked / "iter-003" / "featurize" / "labelled.jsonl")]
    assert labelled == first + spent
    assert len(spent) == 3
    assert manifest(asked, 2, "train")["summary"]["preferences"] == 1
    run = Run.open(asked)
    offered = {pair.pair_id for pair in candidate_pairs(run, 3, run.config)}
    assert offered
    assert not offered & {row["pair_id"] for row in second}


def test_pairs_of_a_pool_that_were_skipped_are_not_asked_about_again(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool has the same pairs in every iteration; all that nobody has seen yet are candidates, and no other."""
    monkeypatch.chdir(tmp_path)
    run = pool_labelled_once(tmp_path, small_model, 6, typed="1\ns\nt\ns\n")
    seen, picked = ({row["pair_id"] for row in rows(run / f"iter-00{t}/select/selection.jsonl")} for t in (1, 2))
    assert (len(seen), len(picked)) == (4, 6)
    assert not seen & picked
    labelled = [row["pair_id"] for row in rows(run / "iter-002/featurize/labelled.jsonl")]
    outcomes = rows(run / "iter-001/label/outcomes.jsonl")
    assert labelled == [row["pair_id"] for row in outcomes if row["outcome"] != "skip"]
    assert len(labelled) == 2


def test_closing_with_the_answers_there_are(asked: Path) -> None:
    label(asked, typed="1\nq\n")
    done(*on(asked, "label", iteration=2), "--accept-partial")
    summary = manifest(asked, 2, "label")["summary"]
    assert (summary["chosen"], summary["unanswered"]) == (1, 3)
    done(*on(asked, "train", iteration=2))
    assert manifest(asked, 2, "train")["summary"]["preferences"] == 1


def test_nothing_to_train_on(asked: Path) -> None:
    label(asked, typed="t\nt\ns\nb\n")
    message = refused(4, *on(asked, "train", iteration=2))
    assert "no response was preferred" in message
    done(*on(asked, "train", iteration=2), "--set", "train.include_ties=true")
    assert manifest(asked, 2, "train")["summary"]["preferences"] == 2


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_out_to_a_file_and_back(asked: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pairs.{suffix}"
    assert label(asked, "--export", path).exit_code == 5
    assert not events(asked) if (asked / "iter-002" / "label" / "labels.jsonl").exists() else True
    if suffix == "csv":
        with path.open(newline="", encoding="utf-8-sig") as stream:
            found = list(csv.DictReader(stream))
    else:
        found = rows(path)
    assert len(found) == 4
    answers = ["a", "b", "", "tie"]
    for row, answer in zip(found, answers, strict=True):
        row["preference"] = answer
    _write(path, found)
    assert activedpo(*on(asked, "label", iteration=2), "--import", path).exit_code == 5
    found[2]["preference"] = "skip"
    _write(path, found)
    done(*on(asked, "label", iteration=2), "--import", path)
    by_pair = {row["pair_id"]: row for row in rows(asked / "iter-002" / "label" / "outcomes.jsonl")}
    assert by_pair[found[0]["pair_id"]]["preferred_id"] == found[0]["response_a_id"]
    assert by_pair[found[1]["pair_id"]]["preferred_id"] == found[1]["response_b_id"]
    assert [by_pair[row["pair_id"]]["outcome"] for row in found[2:]] == ["skip", "tie"]
    assert len(events(asked)) == 4, "an answer that was imported before is not recorded again"


def _write(path: Path, found: list[dict]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
        return
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(found[0]))
        writer.writeheader()
        writer.writerows(found)


def test_an_answer_that_contradicts_is_refused(asked: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    label(asked, "--export", path)
    found = rows(path)
    found[0]["preference"] = "a"
    _write(path, found)
    assert activedpo(*on(asked, "label", iteration=2), "--import", path).exit_code == 5
    found[0]["preference"] = "b"
    _write(path, found)
    before = events(asked)
    message = refused(4, *on(asked, "label", iteration=2), "--import", path)
    assert found[0]["pair_id"] in message
    assert events(asked) == before


def test_a_missing_file_of_answers(asked: Path, tmp_path: Path) -> None:
    refused(4, *on(asked, "label", iteration=2), "--oracle", "human", "--import", tmp_path / "none.csv")
    refused(4, *on(asked, "label", iteration=2), "--oracle", "human", "--guidelines", tmp_path / "none.txt")


def test_a_file_of_another_iteration_leads_to_it(asked: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    label(asked, "--export", path)
    earlier = rows(asked / "iter-001" / "select" / "selection.jsonl")
    _write(path, [row | {"pair_id": one["pair_id"]} for row, one in zip(rows(path), earlier, strict=False)])
    message = " ".join(refused(4, *on(asked, "label", iteration=2), "--import", path).split())
    assert re.search(r"of iteration 1: `activedpo label --run \S+ --iteration 1 --import \S+pairs.jsonl`", message)


def test_a_note_in_another_encoding_ends_no_sitting(asked: Path) -> None:
    words = (*on(asked, "label", iteration=2), "--oracle", "human", "--plain")
    result = CliRunner().invoke(app, [str(word) for word in words], input=b"n caf\xe9\nt\nq\n")
    assert result.exit_code == 5, result.output
    assert [event["label"]["note"] for event in events(asked)] == ["caf\ufffd"]


def test_guidelines_as_editors_write_them(asked: Path, tmp_path: Path) -> None:
    path = tmp_path / "guidelines.txt"
    path.write_bytes(b"\xef\xbb\xbfPrefer\r\nthe truth.")
    assert "> " + "    Prefer\n    the truth.\n" in label(asked, "--guidelines", path, typed="g\nq\n").stdout
    assert "no regular file" in refused(4, *on(asked, "label", iteration=2), "--guidelines", "/dev/zero")
    path.write_bytes("größer".encode("latin-1"))
    assert "UTF-8" in refused(4, *on(asked, "label", iteration=2), "--guidelines", path)


def test_files_are_for_people(asked: Path, tmp_path: Path) -> None:
    assert "--oracle human" in refused(2, *on(asked, "label", iteration=2), "--export", tmp_path / "x.csv")


def test_rebuilding_after_the_labels_are_gone_needs_people_again(asked: Path) -> None:
    label(asked, typed="1\n2\n1\n2\n")
    expected = outputs(asked, 2, "label")
    kept = (asked / "iter-002" / "label" / "labels.jsonl").read_bytes()
    result = activedpo(*on(asked, "label", iteration=2), "--force", "--ask-again", typed="q\n")
    assert result.exit_code == 5
    assert (asked / "iter-002" / "label" / "labels.jsonl").read_bytes() == kept, "the old labels stand until then"
    assert outputs(asked, 2, "label") == expected


def test_answers_of_people_are_never_turned_around(asked: Path) -> None:
    said = refused(2, *on(asked, "label", iteration=2), "--oracle", "human", "--label-noise", 0.1)
    assert "label.noise" in said
    assert not (asked / "iter-002" / "label").exists()
