"""A second answer where answers are drawn: independent of the first, counted, and never what trains."""

import json
import math
import shutil
from pathlib import Path

import pytest
from command_line import done, manifest, on, outputs, refused, rows

from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.label.answered_twice import answered_twice
from activedpo_cli.oracles.base import draws_answers
from activedpo_cli.store.run import Run

PAIRS = 24
DRAWN = ("--answer", "bradley-terry", "--label-temperature", 0.5)


def log_of(run: Path) -> list[dict]:
    return [event["label"] for event in rows(run / "iter-001" / "label" / "labels.jsonl")]


def first_answers(run: Path) -> list[tuple[str, str]]:
    return [(row["pair_id"], row["preferred_id"]) for row in log_of(run) if row["role"] != "overlap"]


def test_the_first_answer_trains_and_the_second_is_counted(many_selected: Path, tmp_path: Path) -> None:
    once = tmp_path / "once"
    shutil.copytree(many_selected, once)
    done(*on(once, "label"), *DRAWN)
    done(*on(many_selected, "label"), *DRAWN, "--overlap", 10)
    assert first_answers(many_selected) == first_answers(once)
    assert outputs(many_selected, 1, "label") == outputs(once, 1, "label")
    further = [row for row in log_of(many_selected) if row["role"] == "overlap"]
    assert {row["annotator"] for row in further} == {"second draw"}
    assert len({row["pair_id"] for row in further}) == 10
    summary = manifest(many_selected, 1, "label")["summary"]
    assert (summary["labels_spent"], summary["measuring"]) == (PAIRS + 10, {"overlap": 10})
    assert manifest(once, 1, "label")["summary"]["labels_spent"] == PAIRS
    shown = json.loads(done("show", "labels", "--run", many_selected, "--json").stdout)
    assert shown["selected"]["pairs"] == 10


@pytest.mark.parametrize("words", [(*DRAWN,), ("--label-noise", 0.3)])
def test_two_draws_differ_as_often_as_independent_ones(many_selected: Path, words: tuple[object, ...]) -> None:
    """The expectation is Σ 2 p (1 − p) with each pair's own p, within 2.6 standard deviations of 24 pairs."""
    done(*on(many_selected, "label"), *words, "--overlap", PAIRS)
    twice = answered_twice(Run(many_selected), 1)
    gaps = {row["pair_id"]: row["score_a"] - row["score_b"] for row in log_of(many_selected)}.values()
    chances = [1 / (1 + math.exp(gap / 0.5)) for gap in gaps] if words == DRAWN else [0.3 for gap in gaps if gap]
    differ = [2 * p * (1 - p) for p in chances]
    assert len(twice.decided) == len(differ)
    assert abs(twice.differing - sum(differ)) < 2.6 * math.sqrt(sum(d * (1 - d) for d in differ))
    assert 0 < twice.differing < PAIRS


def test_a_killed_stage_draws_what_is_missing_and_no_more(many_selected: Path, tmp_path: Path) -> None:
    """After each line of the log, as if the process had been killed there, the same answers come to stand."""
    words = (*DRAWN, "--overlap", 10)
    done(*on(many_selected, "label"), *words)
    folder = many_selected / "iter-001" / "label"
    lines = (folder / "labels.jsonl").read_bytes().splitlines(keepends=True)
    whole, made = log_of(many_selected), outputs(many_selected, 1, "label")
    for kept in (PAIRS - 1, PAIRS, PAIRS + 3):
        for path in folder.iterdir():
            if path.name not in ("started.json", "labels.jsonl"):
                path.unlink()
        (folder / "labels.jsonl").write_bytes(b"".join(lines[:kept]))
        done(*on(many_selected, "label"))
        assert log_of(many_selected) == whole
        assert outputs(many_selected, 1, "label") == made


def test_under_majority_two_draws_that_differ_are_a_tie(many_selected: Path) -> None:
    done(*on(many_selected, "label"), *DRAWN, "--overlap", PAIRS, "--settle", "majority")
    assert manifest(many_selected, 1, "label")["summary"]["tie"] == answered_twice(Run(many_selected), 1).differing


def test_what_can_not_be_drawn_twice_is_refused(many_selected: Path) -> None:
    said = refused(2, *on(many_selected, "label"), "--overlap", 3)
    assert "gives the same answer each time" in said
    assert "--label-noise 0.1" in said
    assert "third person" in refused(2, *on(many_selected, "label"), *DRAWN, "--overlap", 3, "--settle", "third")
    said = refused(2, *on(many_selected, "label"), *DRAWN, "--overlap", 3, "--control", 3)
    assert "label.control is 3" in said
    assert "label.overlap" not in said
    assert not (many_selected / "iter-001" / "label").exists()


@pytest.mark.parametrize(
    ("changes", "is_drawn"),
    [
        ({"oracle": "python:letter_rule:score"}, False),
        ({"oracle": "python:letter_rule:score", "noise": 0.1}, True),
        ({"oracle": "human", "answer": "bradley-terry"}, False),
        ({"oracle": "judge:any", "noise": 0.1}, False),
        ({"oracle": "recorded", "answer": "bradley-terry"}, False),
        ({"oracle": "recorded", "answer": "bradley-terry", "score_field": "s"}, True),
        ({"oracle": "recorded", "noise": 0.1}, True),
    ],
)
def test_whose_answers_are_drawn(changes: dict, is_drawn: bool) -> None:
    assert draws_answers(LabelSettings(**changes)) == is_drawn
