"""Training with the share of wrong answers that the pairs answered twice say, through the command line."""

import json
import math
import shutil
from pathlib import Path

import pytest
from command_line import activedpo, done, manifest, on, outputs, refused, rows

from activedpo_cli.reports.training import read_training
from activedpo_cli.store.run import Run

TWICE = ("--answer", "bradley-terry", "--label-temperature", 0.5, "--overlap", 4)
ROBUST = ("--loss-type", "robust", "--label-smoothing", "overlap")


@pytest.fixture
def labelled_twice(finished: Path) -> Path:
    """A run whose second iteration has two drawn answers to each of its four pairs, and is not trained."""
    for stage in ("label", "train", "evaluate"):
        shutil.rmtree(finished / "iter-002" / stage)
    done(*on(finished, "label", iteration=2), *TWICE, "--quiet")
    return finished


def said(run: Path) -> dict[str, list[str]]:
    """By pair, which response each draw preferred."""
    found: dict[str, list[str]] = {}
    for event in rows(run / "iter-002" / "label" / "labels.jsonl"):
        found.setdefault(event["label"]["pair_id"], []).append(event["label"]["preferred_id"])
    return found


def expected(run: Path) -> float:
    """By the closed form, from the log itself."""
    differing = sum(one != other for one, other in said(run).values())
    difference = (differing + 0.5) / (len(said(run)) + 1)
    return min(0.4, (1 - math.sqrt(max(0, 1 - 2 * difference))) / 2)


@pytest.mark.parametrize("loss", ["robust", "cdpo"])
def test_the_estimate_trains_as_the_same_number_does(labelled_twice: Path, tmp_path: Path, loss: str) -> None:
    told = Path(shutil.copytree(labelled_twice, tmp_path / "told"))
    done(*on(labelled_twice, "train", iteration=2), "--loss-type", loss, "--label-smoothing", "overlap", "--quiet")
    facts = manifest(labelled_twice, 2, "train")["summary"]["wrong_answers"]
    assert facts["share"] == pytest.approx(expected(labelled_twice), abs=1e-6)
    assert (facts["pairs"], facts["left_out"]) == (4, 0)
    done(*on(told, "train", iteration=2), "--loss-type", loss, "--label-smoothing", facts["share"], "--quiet")
    assert outputs(told, 2, "train") == outputs(labelled_twice, 2, "train")
    assert "wrong_answers" not in manifest(told, 2, "train")["summary"]


def test_what_was_taken_as_wrong_is_said(labelled_twice: Path) -> None:
    share = f"{100 * expected(labelled_twice):.0f} %"
    assert f"{share} of answers taken as wrong" in done(*on(labelled_twice, "train", iteration=2), *ROBUST).output
    assert f"iteration 2: {share} of answers were taken as wrong" in done("status", "--run", labelled_twice).stdout
    again = done(*on(labelled_twice, "train", iteration=2), *ROBUST)
    assert "up to date" in again.output


def test_people_who_always_differ_are_believed_at_six_in_ten(finished: Path, tmp_path: Path) -> None:
    """Of four pairs one is a tie to ann and says nothing; about the others bob says the opposite."""
    for stage in ("label", "train", "evaluate"):
        shutil.rmtree(finished / "iter-002" / stage)
    path = tmp_path / "pairs.jsonl"
    activedpo(*on(finished, "label", iteration=2), "--oracle", "human", "--export", path, "--overlap", 4)
    asked = rows(path)
    for person, words in (("ann", ("a", "b", "a", "tie")), ("bob", ("b", "a", "b", "a"))):
        filled = [row | {"preference": word, "annotator": person} for row, word in zip(asked, words, strict=True)]
        (tmp_path / f"{person}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in filled))
        activedpo(*on(finished, "label", iteration=2), "--import", tmp_path / f"{person}.jsonl")
    told = done(*on(finished, "train", iteration=2), *ROBUST).output
    assert "answers to 3 of 3 pairs that were answered twice differ" in told
    facts = manifest(finished, 2, "train")["summary"]["wrong_answers"]
    assert (facts["share"], facts["high"], facts["left_out"], facts["is_cut"]) == (0.4, 0.5, 1, True)
    manifests = {"iter-002/train": Run(finished).stage("train", 2).manifest}
    assert read_training(Run(finished), 2, manifests).wrong_answers == facts


def test_answers_that_come_later_make_it_stale(labelled_twice: Path) -> None:
    """The second opinions are asked for again and differ; the first ones, and so all outcomes, stay the same."""
    done(*on(labelled_twice, "train", iteration=2), *ROBUST, "--quiet")
    before = outputs(labelled_twice, 2, "label")
    done(*on(labelled_twice, "label", iteration=2), "--force", "--overlap", 3, "--quiet")
    assert outputs(labelled_twice, 2, "label") == before
    status = json.loads(done("status", "--run", labelled_twice, "--json").stdout)
    train = status["iterations"][1]["stages"]["train"]
    assert train["state"] == "stale"
    assert any("answers given twice" in reason for reason in train["reasons"])
    refused(3, *on(labelled_twice, "train", iteration=2))
    done(*on(labelled_twice, "train", iteration=2), "--force", "--quiet")
    assert manifest(labelled_twice, 2, "train")["summary"]["wrong_answers"]["pairs"] == 3


def test_without_two_answers_nothing_is_estimated(finished: Path, new_run: Path) -> None:
    shutil.rmtree(finished / "iter-002" / "evaluate")
    message = refused(4, *on(finished, "train", iteration=2), "--force", *ROBUST)
    assert "no pair was answered twice" in message
    assert "--label-smoothing 0.1" in message
    assert (finished / "iter-002" / "train" / "manifest.json").is_file()
    for words in (ROBUST, (*ROBUST, "--set", "label.overlap=2")):
        assert "twice" in refused(2, *on(new_run, "run"), *words)
    assert not list(new_run.glob("iter-*"))


def test_an_experiment_without_two_answers_is_refused_with_its_arm(tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    arm = "{train.loss_type: cdpo, train.label_smoothing: overlap}"
    spec.write_text(f"title: x\nseeds: [0]\narms: {{a: {arm}, b: {{}}}}\n")
    assert "arm `a`" in refused(2, "experiment", spec, "--output", tmp_path / "runs")


def test_a_share_is_a_number_below_one_half_or_the_word(new_run: Path) -> None:
    for value in ("0.5", "overlp", "-0.1"):
        result = activedpo("train", "--run", new_run, "--loss-type", "cdpo", f"--label-smoothing={value}")
        assert result.exit_code == 2
        assert "must be a share from 0 to below 0.5, or overlap" in result.stderr
