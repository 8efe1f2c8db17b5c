"""People answer once about the same texts, and a machine where the selection has changed, unless somebody wants more."""

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import STAGES, activedpo, done, list_again, make_partial, manifest, on, outputs, refused, rows
from small_runs import small_run

from activedpo_cli.store.label_log import LabelLog
from activedpo_cli.store.run import Run

COUNTING = """
import json

def score(prompts, responses):
    with open("asked.jsonl", "a") as stream:
        for prompt, response in zip(prompts, responses):
            stream.write(json.dumps([prompt, response]) + "\\n")
    return [len(set(response)) + response.count("e") / 7 for response in responses]
"""


@pytest.fixture(scope="module")
def selected_once(tmp_path_factory: pytest.TempPathFactory, small_model: Path, prompts_file: Path) -> Path:
    """A folder with a run that has 10 pairs selected, and the function which is to label them; read it, never change it."""
    folder = tmp_path_factory.mktemp("selected")
    (folder / "counting.py").write_text(COUNTING)
    changed = {"generate__num_responses": 4, "select__budget": 10, "label__unit_size": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = small_run(folder / "run", small_model, prompts_file, "python:counting:score", **changed)
        for stage in ("generate", "featurize", "select"):
            done(*on(run, stage))
    return folder


@pytest.fixture
def selected(selected_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with 10 pairs selected, which a function is to label that notes what it is asked."""
    shutil.copytree(selected_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def take_note() -> set[tuple[str, str]]:
    """What the function was asked since the last time: prompt and response."""
    path = Path("asked.jsonl")
    asked = {(prompt, response) for prompt, response in rows(path)} if path.exists() else set()
    path.unlink(missing_ok=True)
    return asked


def questions(run: Path, pairs: set[str]) -> set[tuple[str, str]]:
    """Prompt and text of the responses of some selected pairs, read from the files of the earlier stages."""
    prompts = {row["prompt_id"]: row["prompt"] for row in rows(run / "prompts.jsonl")}
    texts = {
        row["response_id"]: row["text"]
        for path in (run / "iter-001" / "generate").glob("responses-*.jsonl")
        for row in rows(path)
    }
    return {
        (prompts[row["prompt_id"]], texts[row[f"response_{side}_id"]])
        for row in rows(run / "iter-001" / "select" / "selection.jsonl")
        if row["pair_id"] in pairs
        for side in "ab"
    }


def pair_ids(run: Path) -> set[str]:
    return {row["pair_id"] for row in rows(run / "iter-001" / "select" / "selection.jsonl")}


def labels(run: Path) -> list[dict]:
    return [event["label"] for event in rows(run / "iter-001" / "label" / "labels.jsonl") if event["event"] == "label"]


@pytest.mark.parametrize("settings", [(), ("--answer", "bradley-terry", "--label-noise", "0.2")])
def test_a_larger_budget_buys_the_new_pairs_alone(selected: Path, settings: tuple[str, ...]) -> None:
    """And ends with what a run has that asked about all of them, drawn answers included."""
    whole = Path(shutil.copytree(selected, selected.with_name("whole")))
    done(*on(whole, "select"), "--force", "--budget", 20)
    done(*on(whole, "label"), *settings)
    assert take_note() == questions(whole, pair_ids(whole))

    done(*on(selected, "label"), *settings)
    first = pair_ids(selected)
    assert take_note() == questions(selected, first)
    done(*on(selected, "select"), "--force", "--budget", 20)
    new = pair_ids(selected) - first
    assert (len(first), len(new)) == (10, 10)
    said = done(*on(selected, "label"), "--force").stderr
    assert "10 of 20 pairs were answered before and are not asked again" in " ".join(said.split())
    assert take_note() == questions(selected, new)
    assert outputs(selected, 1, "label") == outputs(whole, 1, "label")
    origins = {row["pair_id"]: (row["taken_from"], row["first_given"] is not None) for row in labels(selected)}
    assert origins == dict.fromkeys(first, ("iter-001/label", True)) | dict.fromkeys(new, (None, False))

    done(*on(selected, "select"), "--force", "--budget", 22)
    done(*on(selected, "label"), "--force", "--ask-again")
    assert take_note() == questions(selected, pair_ids(selected))
    assert not any(row["taken_from"] for row in labels(selected))


def test_a_machine_is_asked_again_about_the_same_selection(selected: Path) -> None:
    """What a scorer imports has no digest, so making the labels again is the only way to what it says now."""
    Path("help_of_mine.py").write_text("SIGN = 1\n")
    scorer = COUNTING.replace("import json", "import json\n\nimport help_of_mine")
    scorer = scorer.replace("[len(set(response)) +", "[help_of_mine.SIGN * len(set(response)) + help_of_mine.SIGN *")
    Path("counting.py").write_text(scorer)
    sys.modules.pop("help_of_mine", None)
    done(*on(selected, "label"))
    done(*on(selected, "select"), "--force", "--budget", 12)
    done(*on(selected, "label"), "--force")  # leaves answers about another selection behind, which don't count either
    before = {row["pair_id"]: row["score_a"] for row in labels(selected)}
    take_note()
    Path("help_of_mine.py").write_text("SIGN = -1\n")
    sys.modules.pop("help_of_mine", None)
    done(*on(selected, "label"), "--force")
    assert take_note() == questions(selected, pair_ids(selected))
    assert {row["pair_id"]: row["score_a"] for row in labels(selected)} == {pair: -s for pair, s in before.items()}

    folder = make_partial(selected, 1, "label", "outcomes.jsonl", "preferences.jsonl")
    log = folder / "labels.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:4]))
    done(*on(selected, "label"), "--force")
    assert take_note() == questions(selected, pair_ids(selected))


def test_begun_work_of_people_that_was_set_aside_is_not_lost(selected: Path) -> None:
    people = (*on(selected, "label"), "--oracle", "human")
    assert activedpo(*people, typed="1\n" * 4 + "q\n").exit_code == 5
    done(*people, "--force", typed="t\n" * 6)
    assert [row["outcome"] for row in labels(selected)] == ["chosen"] * 4 + ["tie"] * 6


@pytest.mark.parametrize("change", ["oracle", "answer", "drawn elsewhere", "unreadable"])
def test_other_answers_are_not_taken_for_these(selected: Path, change: str) -> None:
    more: tuple[object, ...] = ()
    done(*on(selected, "label"), *(("--answer", "bradley-terry") if change == "drawn elsewhere" else ()))
    take_note()
    folder = selected / "iter-001" / "label"
    if change == "oracle":
        Path("counting.py").write_text(COUNTING + "# and more\n")
    elif change == "answer":
        more = ("--label-temperature", 2)
    elif change == "drawn elsewhere":
        record = make_partial(selected, 1, "label") / "started.json"
        record.write_text(json.dumps(json.loads(record.read_bytes()) | {"iteration": 2}))
        (selected / ".stale").mkdir()
        folder.rename(selected / ".stale" / "iter-002-label-20260101T000000")
    else:
        log = folder / "labels.jsonl"
        log.write_bytes(log.read_bytes().replace(b'"chosen"', b'"tie"   ', 1))
    done(*on(selected, "select"), "--force", "--budget", 12)
    said = done(*on(selected, "label"), "--force", *more).stderr
    assert take_note() == questions(selected, pair_ids(selected))
    assert ("answers given before are not taken over" in said) == (change == "unreadable")


def test_people_are_asked_again_only_if_somebody_wants_it(selected: Path) -> None:
    people = (*on(selected, "label"), "--oracle", "human", "--annotator", "ann")
    done(*people, typed="1\n2\nt\nb\ns\n" * 2)
    before = outputs(selected, 1, "label")
    said = " ".join(done(*people, "--force", typed="").stderr.split())
    assert "10 of 10 pairs were answered before and are not asked again" in said
    assert f"activedpo label --run {selected} --iteration 1 --oracle human --annotator ann --force --ask-again" in said
    assert outputs(selected, 1, "label") == before
    assert {row["annotator"] for row in labels(selected)} == {"ann"}

    assert "--ask-again" in refused(3, *people, "--ask-again")
    assert activedpo(*people, "--force", typed="q\n").exit_code == 0, "nothing is left to ask"
    again = activedpo(*people, "--force", "--ask-again", typed="t\nt\nq\n")
    assert again.exit_code == 5
    done(*people, "--force", typed="t\n" * 8)  # what was begun to be asked anew goes on so, flag or not
    assert manifest(selected, 1, "label")["summary"]["tie"] == 10
    assert "leave one out" in refused(2, *people, "--rebuild", "--ask-again")


@pytest.mark.parametrize("first", ["export", "quit", "quit after answers were taken over"])
def test_asking_again_is_remembered(selected: Path, tmp_path: Path, first: str) -> None:
    """By the stage itself: whoever goes on without the flag, or with what was hinted, is asked about every pair."""
    people = (*on(selected, "label"), "--oracle", "human")
    done(*people, typed="1\n" * 10)
    table = tmp_path / "pairs.jsonl"
    if first == "export":
        hinted = activedpo(*people, "--force", "--ask-again", "--export", table)
        assert f"label --run {selected} --iteration 1 --oracle human --force --import {table}" in " ".join(
            hinted.stderr.split()
        )
        table.write_text("".join(json.dumps(row | {"preference": "tie"}) + "\n" for row in rows(table)))
        done(*on(selected, "label"), "--force", "--import", table)
    else:
        if first != "quit":
            done(*on(selected, "select"), "--force", "--budget", 12)
            assert activedpo(*people, "--force", typed="q\n").exit_code == 5
        number = len(pair_ids(selected))
        assert activedpo(*people, "--force", "--ask-again", typed="q\n").exit_code == 5
        if first == "quit":
            redone = Run.open(selected).redone_stage("label", 1)
            assert redone.so_far() == "0 answers"
        assert f"{number} of {number} pairs still wait" in activedpo(*people, "--force", typed="q\n").stderr
        done(*people, "--force", typed="t\n" * number)
    assert manifest(selected, 1, "label")["summary"]["tie"] == len(pair_ids(selected))


def test_what_rebuilding_opens_takes_no_further_answers_over(selected: Path) -> None:
    whole = Path(shutil.copytree(selected, selected.with_name("whole")))
    people = "--oracle", "human"
    done(*on(whole, "select"), "--force", "--budget", 12)
    done(*on(whole, "label"), *people, typed="t\n" * 12)
    done(*on(selected, "label"), *people, typed="1\n" * 10)
    done(*on(selected, "select"), "--force", "--budget", 12)
    done(*on(selected, "label"), *people, "--force", "--accept-partial")
    before = outputs(selected, 1, "label")
    shutil.copytree(whole / "iter-001" / "label", selected / ".stale" / "iter-001-label-20990101T000000")
    done(*on(selected, "label"), "--rebuild", "--accept-partial")
    assert outputs(selected, 1, "label") == before
    assert manifest(selected, 1, "label")["summary"]["unanswered"] == 2


@pytest.mark.usefixtures("blank_figures")
def test_an_answer_that_two_iterations_use_is_one_label_spent(finished: Path) -> None:
    """Two of the four pairs of the second iteration ask what was asked in the first; two answers are given."""
    for stage in STAGES[3:]:
        shutil.rmtree(finished / "iter-002" / stage)
    words = (*on(finished, "label", iteration=2), "--oracle", "human")
    assert activedpo(*words, typed="1\n" * 3 + "q\n").exit_code == 5
    log = finished / "iter-002" / "label" / "labels.jsonl"
    asked = list(LabelLog(log).labels().values())
    shutil.rmtree(log.parent)
    first = LabelLog(finished / "iter-001" / "label" / "labels.jsonl")
    answers = zip(list(first.labels().values())[:2], asked, strict=False)
    first.append(
        *(
            replace(old, outcome="tie", preferred_id=None, oracle="human", seconds=1000.0, texts=new.texts)
            for old, new in answers
        )
    )
    list_again(finished, 1, "label")
    done(*words, typed="1\n2\n")
    assert [row["outcome"] for row in rows(log.parent / "outcomes.jsonl")] == ["tie", "tie", "chosen", "chosen"]
    assert manifest(finished, 2, "label")["summary"]["labels_spent"] == 2
    for stage in STAGES[4:]:
        done(*on(finished, stage, iteration=2), "--quiet")
    metrics = json.loads((finished / "iter-002" / "evaluate" / "metrics.json").read_bytes())
    assert metrics["labels_spent"] == 4 + 2
    assert json.loads(done(*on(finished, "status"), "--json").stdout)["labels_spent"] == 4 + 2
    done("report", finished, "--quiet")
    found = json.loads((finished / "report" / "report.json").read_bytes())["runs"][0]["labels"][1]
    assert (found["labels_spent"], found["timed_answers"]) == (2, 2)
    assert max(found["seconds"]) < 1000


def test_answers_that_were_taken_over_can_still_be_asked_again(selected: Path) -> None:
    people = (*on(selected, "label"), "--oracle", "human")
    done(*people, typed="1\n" * 10)
    done(*on(selected, "select"), "--force", "--budget", 12)
    assert activedpo(*people, "--force", typed="q\n").exit_code == 5
    log = selected / "iter-001" / ".label.redo" / "labels.jsonl"
    assert len(rows(log)) == 10
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:4]))  # killed while they were written
    assert activedpo(*people, "--force", typed="q\n").exit_code == 5
    assert len(rows(log)) == len({event["label"]["pair_id"] for event in rows(log)}) == 10
    done(*people, "--force", "--ask-again", typed="t\n" * 12)
    assert manifest(selected, 1, "label")["summary"]["tie"] == 12


def test_the_same_question_is_known_under_other_ids_and_sides(selected: Path) -> None:
    """As where responses were made again in another order: who was preferred, and which score is whose, stay right."""
    done(*on(selected, "label"))
    expected = outputs(selected, 1, "label")
    folder, kept = selected / "iter-001" / "label", selected / ".stale" / "iter-001-label-20260101T000000"
    kept.parent.mkdir()
    folder.rename(kept)
    # Responses that were made again come with another selection, which the kept record therefore names.
    record = json.loads((kept / "manifest.json").read_bytes())
    record["inputs"]["iter-001/select"] = "sha256:" + "0" * 64
    (kept / "manifest.json").write_text(json.dumps(record))
    renamed = []
    for label in LabelLog(kept / "labels.jsonl").labels().values():
        stem, _, responses = label.pair_id.rpartition("/")
        a = responses.split("-")[0]
        assert label.texts
        prompt, text_a, text_b = label.texts
        renamed.append(
            replace(
                label,
                pair_id=f"{stem}/r77-r99",
                preferred_id=label.preferred_id and f"{stem}/{'r99' if label.preferred_id.endswith(a) else 'r77'}",
                score_a=label.score_b,
                score_b=label.score_a,
                texts=[prompt, text_b, text_a],
            )
        )
    (kept / "labels.jsonl").unlink()
    # Several pairs of a prompt share the id now, so each answer lies in a folder of its own.
    places = [kept.with_name(f"{kept.name}-{number}") for number in range(1, len(renamed) + 1)]
    for place, label in zip(places, renamed, strict=True):
        shutil.copytree(kept, place)
        LabelLog(place / "labels.jsonl").append(label)
    take_note()
    done(*on(selected, "label"))
    assert take_note() == set()
    assert outputs(selected, 1, "label") == expected


def test_logs_of_older_versions_name_their_texts_by_ids(selected: Path) -> None:
    done(*on(selected, "label"))
    log = selected / "iter-001" / "label" / "labels.jsonl"
    older = [replace(label, texts=None) for label in LabelLog(log).labels().values()]
    log.unlink()
    LabelLog(log).append(*older)
    take_note()
    first = pair_ids(selected)
    done(*on(selected, "select"), "--force", "--budget", 12)
    done(*on(selected, "label"), "--force")
    assert take_note() == questions(selected, pair_ids(selected) - first)
    assert all(
        row["texts"] and (row["taken_from"] is not None) == (row["pair_id"] in first) for row in labels(selected)
    )

    LabelLog(log).path.unlink()
    LabelLog(log).append(*older)
    done(*on(selected, "generate"), "--force", "--temperature", 0.8)
    for stage in ("featurize", "select"):
        done(*on(selected, stage), "--force")
    for stale in (selected / ".stale").glob("iter-001-label-*"):
        shutil.rmtree(stale)
    done(*on(selected, "label"), "--force")
    assert take_note() == questions(selected, pair_ids(selected)), "these ids are of other texts now"


def test_the_log_says_which_texts_were_compared(selected: Path) -> None:
    done(*on(selected, "label"))
    asked = take_note()
    known = {hashlib.sha256(json.dumps(text).encode()).hexdigest() for question in asked for text in question}
    assert {digest for row in labels(selected) for digest in row["texts"]} == known
