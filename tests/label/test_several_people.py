"""A second person, controls, gold and repetitions, through the command line: asked, kept, and never trained on."""

import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import STAGES, activedpo, done, manifest, on, refused, rows
from small_runs import pool_labelled_once

from activedpo_cli.label.borrowed_names import borrowed_names
from activedpo_cli.pairs.candidates import candidate_pairs
from activedpo_cli.store.label_log import LabelLog
from activedpo_cli.store.run import Run

GOLD = [
    {"prompt": f"Which is right about {n}?", "chosen": f"{n} is {n}", "rejected": f"{n} is {n + 1}"} for n in range(7)
]


@pytest.fixture
def asked(finished: Path) -> Path:
    """A run whose second iteration waits for people: 4 pairs."""
    for stage in STAGES[3:]:
        shutil.rmtree(finished / "iter-002" / stage)
    return finished


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    path = tmp_path / "gold.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in GOLD))
    return path


def label(run: Path, *words: object, typed: str = "", by: str = "ann"):
    return activedpo(*on(run, "label", iteration=2), "--oracle", "human", "--annotator", by, *words, typed=typed)


def answers(run: Path) -> list[dict]:
    found = rows(run / "iter-002" / "label" / "labels.jsonl")
    return [event["label"] for event in found if event["event"] == "label"]


def outcomes(run: Path) -> list[dict]:
    return rows(run / "iter-002" / "label" / "outcomes.jsonl")


def test_a_second_person_is_waited_for_and_the_first_trains(asked: Path) -> None:
    result = label(asked, "--overlap", 2, typed="1\n1\n1\n1\n")
    assert result.exit_code == 5, result.output
    assert "all 4 pairs are answered, and 2 answers that measure agreement are still missing" in result.stderr
    assert "--annotator NAME" in result.stderr
    left = label(asked, typed="")
    assert left.exit_code == 5, "the first person has nothing left to answer"
    assert "2 answers are left to other people" in left.stdout
    assert "--annotator NAME`, for somebody who has not answered these pairs" in left.stderr
    assert "--annotator ann" not in left.stderr.partition(", or close")[0]
    result = label(asked, by="bob", typed="t\nt\n")
    assert result.exit_code == 0, result.output
    assert Counter(row["role"] for row in answers(asked)) == {"selected": 4, "overlap": 2}
    assert [row["outcome"] for row in outcomes(asked)] == ["chosen"] * 4
    assert manifest(asked, 2, "label")["summary"]["labels_spent"] == 4
    assert manifest(asked, 2, "label")["summary"]["measuring"] == {"overlap": 2}
    assert "up to date" in done(*on(asked, "label", iteration=2)).stderr


def test_fewer_pairs_than_were_to_measure_are_told(asked: Path) -> None:
    told = label(asked, "--overlap", 9, "--control", 900, typed="q\n").stderr
    assert "label.overlap is 9, of 4 selected pairs: all are asked twice" in told
    assert re.search(r"label\.control is 900, and \d+ pairs are left to draw", told)


def test_closing_without_the_second_person(asked: Path) -> None:
    label(asked, "--overlap", 2, typed="1\n1\n1\n1\n")
    done(*on(asked, "label", iteration=2), "--accept-partial")
    assert manifest(asked, 2, "label")["summary"]["unanswered"] == 0


@pytest.mark.parametrize(
    ("rule", "said", "expected"),
    [
        ("first", ["tie", "both_bad"], "tie"),
        ("first", ["skip", "both_bad"], "both_bad"),
        ("majority", ["tie", "both_bad"], "tie"),
        ("majority", ["both_bad", "both_bad"], "both_bad"),
        ("majority", ["skip", "both_bad"], "both_bad"),
        ("third", ["tie", "both_bad", "both_bad"], "both_bad"),
        ("third", ["both_bad", "both_bad"], "both_bad"),
    ],
)
def test_disagreements_are_settled(asked: Path, rule: str, said: list[str], expected: str) -> None:
    keys = {"tie": "t", "both_bad": "b", "skip": "s"}
    for person, word in zip(("ann", "bob", "cat"), said, strict=False):
        result = label(asked, "--overlap", 4, "--settle", rule, by=person, typed=f"{keys[word]}\n" * 4)
    assert result.exit_code == 0, result.output
    assert {row["outcome"] for row in outcomes(asked)} == {expected}
    assert len(answers(asked)) == 4 * len(said)


def test_controls_and_gold_are_asked_unmarked_and_never_trained_on(asked: Path, gold: Path) -> None:
    result = label(asked, "--control", 3, "--gold", gold, "--gold-pairs", 2, typed="1\n" * 9)
    assert result.exit_code == 0, result.output
    assert "Pair 9 of 9" in result.stdout
    asked_about = result.stdout.partition("Pair 1 of 9")[2].partition("Pair 9 of 9")[0]
    assert not any(word in asked_about for word in ("control", "gold")), asked_about
    found = answers(asked)
    by_role = {role: [row for row in found if row["role"] == role] for role in ("selected", "control", "gold")}
    assert {role: len(rows_) for role, rows_ in by_role.items()} == {"selected": 4, "control": 3, "gold": 2}
    assert [row["role"] for row in found] != sorted(row["role"] for row in found), "they are mixed in"
    selected = {row["pair_id"] for row in rows(asked / "iter-002" / "select" / "selection.jsonl")}
    assert {row["pair_id"] for row in by_role["selected"]} == selected
    assert {row["pair_id"] for row in outcomes(asked)} == selected
    run = Run.open(asked)
    drawable = {pair.pair_id for pair in candidate_pairs(run, 2, run.config)} - selected
    assert {row["pair_id"] for row in by_role["control"]} <= drawable
    known = {row["pair_id"]: row["known_id"] for row in by_role["gold"]}
    assert all(pair.rpartition("/")[0] == better.rpartition("/")[0] for pair, better in known.items())
    assert manifest(asked, 2, "label")["summary"]["labels_spent"] == 4
    assert len(rows(asked / "iter-002" / "label" / "preferences.jsonl")) == 4
    for row in by_role["gold"]:
        assert row["pair_id"] not in {pair.pair_id for pair in candidate_pairs(run, 2, run.config)}


@pytest.mark.parametrize("tool", ["jsonl", "label-studio"])
def test_a_file_does_not_tell_which_pairs_are_gold(asked: Path, gold: Path, tmp_path: Path, tool: str) -> None:
    """Their ids are those of prompts of the run, and none comes twice; the answers land where they belong."""
    out = tmp_path / ("tasks.jsonl" if tool == "jsonl" else "tasks.json")
    words = ("--gold", gold, "--gold-pairs", 2, "--control", 3, "--export", out, "--format", tool)
    assert label(asked, *words).exit_code == 5
    if tool == "jsonl":
        found = rows(out)
        data = found
    else:
        found = json.loads(out.read_text())
        data = [task["data"] for task in found]
    texts = {row["prompt"] for row in GOLD}
    asked_gold = [row for row in data if row["prompt"] in texts]
    assert len(asked_gold) == 2
    prompts = {prompt.prompt_id for prompt in Run.open(asked).prompts() if prompt.split == "train"}
    assert {row["pair_id"].partition("/")[0] for row in data} <= prompts
    assert len({row["pair_id"] for row in data}) == 9
    first = "response_a" if tool == "jsonl" else "answer1"
    assert all(row[f"{first}_id"].startswith(row["pair_id"].rpartition("/")[0] + "/r") for row in data)
    for task in found:
        if tool == "jsonl":
            task["preference"] = "a"
        else:
            value = {"type": "choices", "from_name": "preference", "value": {"choices": ["left"]}}
            task["annotations"] = [{"id": 1, "completed_by": 2, "result": [value]}]
    answered = tmp_path / ("answers.jsonl" if tool == "jsonl" else "answers.json")
    as_lines = "".join(json.dumps(row) + "\n" for row in found)
    answered.write_text(as_lines if tool == "jsonl" else json.dumps(found))
    assert label(asked, "--import", answered).exit_code == 0
    by_role = Counter(row["role"] for row in answers(asked))
    assert by_role == {"selected": 4, "control": 3, "gold": 2}
    chosen = {row["prompt"]: row[first] for row in asked_gold}
    better = {row["prompt"]: row["chosen"] for row in GOLD}
    right = Counter(row["preferred_id"] == row["known_id"] for row in answers(asked) if row["role"] == "gold")
    assert right == Counter(chosen[prompt] == better[prompt] for prompt in chosen)
    assert label(asked, "--import", answered).exit_code == 0, "what stands is the same"


def test_a_borrowed_name_means_nothing_without_the_texts(asked: Path, gold: Path, tmp_path: Path) -> None:
    """A pair of that name may have been exported before; by ids alone its answer would be taken for gold's."""
    out = tmp_path / "pairs.jsonl"
    assert label(asked, "--gold", gold, "--gold-pairs", 1, "--export", out).exit_code == 5
    found = [row | {"preference": "a"} for row in rows(out)]
    known = [row for row in found if row["prompt"] in {one["prompt"] for one in GOLD}]
    for column in ("prompt", "response_a", "response_b"):
        del known[0][column]
    out.write_text("".join(json.dumps(row) + "\n" for row in found))
    result = label(asked, "--import", out)
    assert result.exit_code == 4
    assert "is not to be known without its prompt" in " ".join(result.stderr.split())


def test_borrowed_names_are_of_prompts_that_nobody_is_asked_about() -> None:
    prompts = [f"p{number:06d}" for number in range(30)]
    asked = [f"{prompt}/i001/r{number}-r4" for number, prompt in enumerate(prompts[:3])]
    gold = [f"p{number:06d}/i001/r0-r1" for number in range(30, 40)]
    names = borrowed_names(gold, asked, prompts, random.Random(0))
    assert names.keys() == set(gold)
    assert len({name.partition("/")[0] for name in names.values()} & set(prompts[3:])) == 10
    assert len(set(names.values())) == 10
    assert {number for name in names.values() for number in map(int, re.findall(r"r(\d)", name))} <= set(range(5))
    assert len({name.rpartition("/")[2] for name in names.values()}) > 1, "not always the first two"
    few = borrowed_names(gold[:3], asked, prompts[:2], random.Random(0))
    assert few[gold[2]] == gold[2]
    assert not {few[own] for own in gold[:2]} & set(asked)


def test_what_is_asked_beside_does_not_depend_on_who_asks_when(asked: Path, gold: Path, tmp_path: Path) -> None:
    other = shutil.copytree(asked, tmp_path / "other")
    flags = ("--control", 3, "--gold", gold, "--gold-pairs", 2, "--overlap", 1)
    label(asked, *flags, typed="1\n" * 9)
    for person in ("cat", "dan", "eve"):
        label(Path(other), *flags, by=person, typed="t\n" * 3 + "q\n")
    asked_here, asked_there = ([row["pair_id"] for row in answers(run)] for run in (asked, Path(other)))
    assert asked_here == asked_there


def test_gold_that_changed_meanwhile_is_another_question(asked: Path, gold: Path) -> None:
    label(asked, "--gold", gold, typed="1\nq\n")
    gold.write_text(gold.read_text().replace("is 3", "is not 3"))
    assert "label.gold" in refused(3, *on(asked, "label", iteration=2))


def test_gold_is_known_by_its_content_wherever_it_is(
    asked: Path, gold: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the path is typed, from whatever folder; and what is closed needs the file no more."""
    monkeypatch.chdir(tmp_path)
    assert label(asked, "--gold", "gold.jsonl", "--gold-pairs", 1, typed="1\nq\n").exit_code == 5
    other = tmp_path / "other"
    other.mkdir()
    copy = shutil.copy(gold, other)
    for path in ("./gold.jsonl", gold, copy, "other/../gold.jsonl"):
        assert label(asked, "--gold", path, typed="q\n").exit_code == 5, path
    monkeypatch.chdir(other)
    gold_beside = Path("gold.jsonl")
    gold_beside.write_text(gold.read_text().replace("is 3", "is not 3"))
    assert label(asked, typed="1\n" * 4).exit_code == 0
    assert "label.gold" in refused(3, *on(asked, "label", iteration=2), "--gold", "gold.jsonl")

    gold.unlink()
    done(*on(asked, "label", iteration=2))
    monkeypatch.chdir(tmp_path)
    done(*on(asked, "label", iteration=2), "--gold", "gold.jsonl")
    state = json.loads(done(*on(asked, "status"), "--json").stdout)["iterations"][1]["stages"]["label"]
    assert (state["state"], state["notes"]) == ("complete", [])
    expected = outcomes(asked)
    (asked / "iter-002" / "label" / "preferences.jsonl").unlink()
    done(*on(asked, "label", iteration=2), "--rebuild")
    assert outcomes(asked) == expected


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "p", "chosen": "x"}, "lacks `rejected`"),
        ({"prompt": "p", "chosen": "x", "rejected": "x"}, "are equal"),
        ({"prompt": "p", "chosen": "x", "rejected": " "}, "no response with text"),
        ({"prompt": "", "chosen": "x", "rejected": "y"}, "line 8"),
    ],
)
def test_gold_with_a_fault_names_the_row(asked: Path, gold: Path, row: dict, said: str) -> None:
    with gold.open("a") as stream:
        stream.write(json.dumps(row) + "\n")
    message = refused(4, *on(asked, "label", iteration=2), "--oracle", "human", "--gold", gold)
    assert said in message
    assert "line 8" in message
    assert not (asked / "iter-002" / "label").exists()


def test_machines_are_asked_nothing_beside(asked: Path) -> None:
    for flags in (("--overlap", 1), ("--control", 1), ("--repeat", 1), ("--gold", "x.jsonl")):
        message = refused(2, *on(asked, "label", iteration=2), *flags)
        assert "--oracle human" in message
    message = refused(2, *on(asked, "label", iteration=2), "--overlap", 1, "--gold", "x.jsonl", "--control", 2)
    assert "`--set label.overlap=0 --set label.control=0 --set label.gold=null`" in message, "all at once"
    assert not (asked / "iter-002" / "label").exists()


def test_files_of_two_people(asked: Path, tmp_path: Path) -> None:
    """The second person's is no contradiction; a changed answer of the first is."""
    path = tmp_path / "pairs.jsonl"
    activedpo(*on(asked, "label", iteration=2), "--oracle", "human", "--export", path, "--control", 2)
    found = rows(path)
    assert len(found) == 6
    for person, word in (("ann", "a"), ("bob", "tie")):
        filled = tmp_path / f"{person}.jsonl"
        filled.write_text(
            "".join(json.dumps(row | {"preference": word, "annotator": person}) + "\n" for row in found[:5])
        )
        activedpo(*on(asked, "label", iteration=2), "--import", filled)
    assert Counter((row["annotator"], row["outcome"]) for row in answers(asked)) == {
        ("ann", "chosen"): 5,
        ("bob", "tie"): 5,
    }
    changed = tmp_path / "changed.jsonl"
    changed.write_text(json.dumps(found[0] | {"preference": "b", "annotator": "ann"}) + "\n")
    assert found[0]["pair_id"] in refused(4, *on(asked, "label", iteration=2), "--import", changed)
    rest = tmp_path / "rest.jsonl"
    rest.write_text(json.dumps(found[5] | {"preference": "a", "annotator": "bob"}) + "\n")
    done(*on(asked, "label", iteration=2), "--import", rest)
    assert all(row["outcome"] == "chosen" for row in outcomes(asked))


def test_a_stage_made_again_takes_over_what_everybody_said(asked: Path) -> None:
    label(asked, "--overlap", 2, "--control", 2, typed="1\n" * 6)
    label(asked, by="bob", typed="t\n" * 4)
    before = [
        (row["pair_id"], row["annotator"], row["outcome"], row["preferred_id"], row["role"]) for row in answers(asked)
    ]
    expected = outcomes(asked)
    result = label(asked, "--force", by="cat")
    assert result.exit_code == 0, result.output
    after = [
        (row["pair_id"], row["annotator"], row["outcome"], row["preferred_id"], row["role"]) for row in answers(asked)
    ]
    assert sorted(after) == sorted(before)
    assert outcomes(asked) == expected
    assert manifest(asked, 2, "label")["summary"]["measuring"] == {"overlap": 2, "control": 4}


def test_a_control_that_is_selected_later_trains(asked: Path) -> None:
    label(asked, "--control", 30, typed="1\n" * 40)
    controls = {row["pair_id"]: row for row in answers(asked) if row["role"] == "control"}
    done(*on(asked, "select", iteration=2), "--force", "--budget", 8)
    result = label(asked, "--force", "--control", 0, typed="t\n" * 8)
    assert result.exit_code == 0, result.output
    taken = [row for row in answers(asked) if row["pair_id"] in controls]
    assert taken
    assert {row["role"] for row in taken} == {"selected"}
    assert len(outcomes(asked)) == 8
    assert manifest(asked, 2, "label")["summary"]["labels_spent"] == 8


def test_what_was_answered_before_is_no_control(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool has the same pairs in every iteration; the answers to those of an earlier one would be taken over."""
    monkeypatch.chdir(tmp_path)
    run = pool_labelled_once(tmp_path, small_model, 1, "--control", 2, typed="1\n" * 6)
    done(*on(run, "label", iteration=2), "--control", 9, typed="1\n" * 9)
    first, second = (
        [event["label"] for event in rows(run / f"iter-00{number}/label/labels.jsonl")] for number in (1, 2)
    )
    assert {row["role"] for row in second} == {"selected", "control"}
    assert not {row["pair_id"] for row in first} & {row["pair_id"] for row in second if row["role"] == "control"}


def test_gold_that_is_dealt_again_is_asked_again(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gold: Path
) -> None:
    """In a later iteration it says how people read then; a stage that is made again asks nobody twice."""
    monkeypatch.chdir(tmp_path)
    gold.write_text(json.dumps(GOLD[0]) + "\n")
    run = pool_labelled_once(tmp_path, small_model, 1, "--gold", gold, typed="1\n" * 9)
    words = (*on(run, "label", iteration=2), "--gold", gold)
    done(*words, typed="1\n" * 9)
    done(*words, "--force")

    def given(iteration: int) -> list[tuple[str, str | None]]:
        found = [event["label"] for event in rows(run / f"iter-00{iteration}/label/labels.jsonl")]
        return [(label["texts"], label["taken_from"]) for label in found if label["role"] == "gold"]

    assert [taken for _, taken in given(1) + given(2)] == [None, "iter-002/label"]
    assert given(1)[0][0] == given(2)[0][0]
    assert json.loads(done(*on(run, "show", "labels"), "--json").stdout)["people"][0]["gold"]["of"] == 2


@pytest.mark.parametrize("lost", ["preferences.jsonl", "manifest.json"])
def test_a_stage_closed_without_what_measures_is_closed_again_so(asked: Path, gold: Path, lost: str) -> None:
    """By the very command that `verify` names, which neither asks anybody nor leaves the stage open."""
    beside = ("--overlap", 4, "--control", 2, "--gold", gold, "--gold-pairs", 1, "--repeat", 2)
    label(asked, *beside, typed="1\n" * 5 + "q\n")
    label(asked, by="bob", typed="t\n" * 7 + "q\n")
    done(*on(asked, "label", iteration=2), "--accept-partial")
    assert manifest(asked, 2, "label")["summary"]["unanswered"] == 0
    before, expected, folder = answers(asked), outcomes(asked), asked / "iter-002" / "label"
    preferences = (folder / "preferences.jsonl").read_bytes()
    if lost == "manifest.json":
        (folder / lost).write_text("{")
    else:
        (folder / lost).unlink()
    found = json.loads(activedpo("verify", "--run", asked, "--json").stdout)["problems"]
    repair = next(row["repair"] for row in found if row["file"].startswith("iter-002/label/"))
    assert repair.endswith("--rebuild")
    result = activedpo(*repair.split()[1:], typed="")
    assert result.exit_code == 0, result.output
    assert (answers(asked), outcomes(asked)) == (before, expected)
    assert (folder / "preferences.jsonl").read_bytes() == preferences


def test_show_names_the_answer_that_trains(asked: Path) -> None:
    """While people answer as well as afterwards, and not what the first of them said."""
    words = ("--overlap", 4, "--set", "label.settle=majority")
    label(asked, *words, typed="1\n" * 4)
    label(asked, *words, by="bob", typed="b\n" * 3 + "q\n")
    part = [row["label"] for row in json.loads(done(*on(asked, "show"), "--json").stdout)]
    assert sorted(word.endswith("preferred") for word in part) == [False] * 3 + [True]
    label(asked, by="bob", typed="b\n")
    shown = json.loads(done(*on(asked, "show"), "--json").stdout)
    assert [row["label"] for row in shown] == ["tie"] * 4 == [row["outcome"] for row in outcomes(asked)]
    details = json.loads(done(*on(asked, "show", shown[0]["pair_id"]), "--json").stdout)
    assert details["label"] == "tie"
    assert [(one["annotator"], one["role"]) for one in details["answers"]] == [("ann", "selected"), ("bob", "overlap")]
    assert [one["answer"].rpartition(" ")[2] for one in details["answers"]] == ["preferred", "both_bad"]
    assert not any(details[side]["preferred"] for side in ("response_a", "response_b"))


@pytest.fixture
def log_of(asked: Path) -> Callable[[int, str, str], None]:
    """Put what a person says of every pair of the second iteration, which is set aside with it, into one of some folders."""
    assert label(asked, typed="1\n" * 4).exit_code == 0
    told = list(LabelLog(asked / "iter-002" / "label" / "labels.jsonl").labels().values())

    def give(number: int, by: str, moment: str) -> None:
        folder = asked / ".stale" / f"iter-002-label-2026010{number}T000000"
        if not folder.exists():
            shutil.copytree(asked / "iter-002" / "label", folder)
            (folder / "labels.jsonl").unlink()
        log = LabelLog(folder / "labels.jsonl", now=lambda: f"2026-01-{moment}T00:00:00+00:00")
        if by == "anew":
            log.retract(*(one.pair_id for one in told))
        else:
            log.append(*(replace(one, annotator=by, outcome="tie", preferred_id=None) for one in told))

    (asked / ".stale").mkdir(exist_ok=True)
    return give


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([(1, "bob", "02"), (2, "cat", "03")], ["bob", "cat"]),
        ([(1, "bob", "03"), (2, "cat", "02")], ["cat", "bob"]),
        ([(1, "bob", "02"), (1, "cat", "03"), (2, "cat", "03")], ["bob", "cat"]),
        ([(1, "bob", "02"), (2, "anew", "03"), (2, "cat", "04")], ["cat"]),
        ([(1, "bob", "02"), (2, "cat", "03"), (2, "anew", "04")], ["bob"]),
        ([(1, "anew", "03"), (1, "cat", "04"), (2, "bob", "02")], ["cat"]),
    ],
)
def test_answers_of_everybody_are_taken_over_from_wherever_they_are(
    asked: Path, log_of: Callable[[int, str, str], None], given: list[tuple[int, str, str]], expected: list[str]
) -> None:
    """In the order in which they were given; whoever was asked anew is not contradicted by what was said before."""
    for one in given:
        log_of(*one)
    shutil.rmtree(asked / "iter-002" / "label")
    assert label(asked, by="dan", typed="").exit_code == 0
    by_pair: dict[str, list[str]] = {}
    for row in answers(asked):
        by_pair.setdefault(row["pair_id"], []).append(row["annotator"])
    assert list(by_pair.values()) == [expected] * 4


def test_what_was_torn_while_it_was_taken_over_is_completed(
    asked: Path, log_of: Callable[[int, str, str], None]
) -> None:
    log_of(1, "bob", "02")
    log_of(1, "cat", "03")
    shutil.rmtree(asked / "iter-002" / "label")
    assert label(asked, "--overlap", 4, "--settle", "third", "--control", 1, by="dan", typed="q\n").exit_code == 5
    log = asked / "iter-002" / "label" / "labels.jsonl"
    whole = log.read_bytes()
    expected = [(row["pair_id"], row["annotator"], row["role"]) for row in answers(asked)]
    assert len(expected) == 8
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    assert label(asked, by="dan", typed="q\n").exit_code == 5
    assert [(row["pair_id"], row["annotator"], row["role"]) for row in answers(asked)] == expected


@pytest.mark.parametrize("rule", ["first", "majority"])
def test_a_damaged_line_takes_no_other_answer_with_it(asked: Path, rule: str) -> None:
    """Whoever gave the others keeps them, and what trains stays what it was, though the damaged line decided it."""
    beside = ("--overlap", 3, "--control", 2, "--settle", rule)
    label(asked, *beside, typed="1\n2\n1\n1\n1\n1\n")
    label(asked, by="bob", typed="b\n" * 5)
    expected, folder = outcomes(asked), asked / "iter-002" / "label"
    log, before = folder / "labels.jsonl", answers(asked)
    lines = log.read_bytes().splitlines(keepends=True)
    assert len(lines) == len(before) == 4 + 3 + 4
    first = {row["role"]: place for place, row in reversed(list(enumerate(before)))}
    twice = {row["pair_id"] for row in before if row["role"] == "overlap"}
    decides = next(place for place, row in enumerate(before) if row["role"] == "selected" and row["pair_id"] in twice)
    for place in (decides, first["overlap"], first["control"]):
        damaged = lines[place].replace(b'"human"', b'"hunan"')
        log.write_bytes(b"".join([*lines[:place], damaged, *lines[place + 1 :]]))
        told = done(*on(asked, "label", iteration=2), "--rebuild").stderr
        assert "1 damaged line," in " ".join(told.split())
        assert outcomes(asked) == expected
        left = [row for row in answers(asked) if row["annotator"]]
        assert {key_of(row) for row in left} == {key_of(row) for row in [*before[:place], *before[place + 1 :]]}
        nameless = [row["pair_id"] for row in answers(asked) if not row["annotator"]]
        assert set(nameless) <= {before[place]["pair_id"]}
        assert bool(nameless) == (place == decides or (rule == "majority" and place == first["overlap"]))


def key_of(row: dict) -> tuple:
    return row["pair_id"], row["annotator"], row["outcome"], row["preferred_id"], row["role"], row["seconds"]
