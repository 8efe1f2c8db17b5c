"""Label Studio, Argilla and Prodigy: what goes out is what they load, and what they export comes back as labels.

Answers are built as the released tools write them, from what was exported and by code that shares nothing with the readers.
"""

import contextlib
import json
import random
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import STAGES, activedpo, done, manifest, on, refused, rows
from compared_pairs import make_comparison
from exchanged_files import export_pairs
from hostile_text import HOSTILE
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.label.exchange import Reading, filled_in, format_to_write
from activedpo_cli.label.formats.base import COLUMNS

PAIRS = [make_comparison(number, f"first answer {number}", f"second answer {number}") for number in range(1, 5)]
TEXTS = st.one_of(st.sampled_from(sorted(HOSTILE.values())), st.text(st.characters(codec=None), max_size=12))
CHOICES = ["a", "b", "tie", "both_bad"]
TOOLS = ["label-studio", "argilla", "prodigy"]
PLACES = {"label-studio": "tasks.json", "argilla": "folder", "prodigy": "tasks.jsonl"}


def exported(tool: str, pairs: list = PAIRS) -> dict[str, bytes]:
    """The files that an export writes, by their path."""
    asked = [json.loads(line) for line in export_pairs(pairs, "x.jsonl", seed=0).decode().splitlines()]
    name = PLACES[tool]
    files = format_to_write(name, tool).render(asked, Path(name), "run-iter-001")
    return {path.as_posix(): content for path, content in files.items()}


def tasks_of(tool: str, pairs: list = PAIRS) -> list[dict[str, Any]]:
    """What the tool loads."""
    files = exported(tool, pairs)
    if tool == "prodigy":
        return [json.loads(line) for line in files["tasks.jsonl"].split(b"\n") if line]
    return json.loads(files["tasks.json" if tool == "label-studio" else "folder/records.json"])


def studio_annotation(word: str | None, **more: Any) -> dict[str, Any]:
    """As in `tutorials/ls_output_data.json` of HumanSignal's RLHF, with the result of a control of choices."""
    result = {"id": "94W5CCD9HP", "from_name": "preference", "to_name": "prompt", "type": "choices", "origin": "manual"}
    return {
        "id": 68045,
        "completed_by": 2,
        "was_cancelled": False,
        "ground_truth": False,
        "lead_time": 12.51,
        "created_at": "2023-04-17T21:54:20.457543Z",
        "result": [] if word is None else [{**result, "value": {"choices": [word]}}],
        **more,
    }


def studio_export(tasks: list[dict[str, Any]], annotations: list[list[dict[str, Any]]]) -> bytes:
    whole = [
        {"id": 401635 + number, **task, "drafts": [], "predictions": [], "annotations": given}
        for number, (task, given) in enumerate(zip(tasks, annotations, strict=True))
    ]
    return json.dumps(whole).encode()


def answered(tool: str, tasks: list[dict[str, Any]], words: list[str]) -> tuple[str, bytes]:
    """What one person's answers look like when they are exported; the words are ours."""
    if tool == "label-studio":
        theirs = {"a": "left", "b": "right"}
        return "x.json", studio_export(tasks, [[studio_annotation(theirs.get(word, word))] for word in words])
    if tool == "argilla":
        return "x.json", json.dumps(
            [flat(task, [(word, "u1", "submitted")]) for task, word in zip(tasks, words, strict=True)]
        ).encode()
    places = {"a": 0, "b": 1, "tie": 2, "both_bad": 3}
    lines = [
        {**task, "accept": [task["options"][places[word]]["id"]], "answer": "accept", "_session_id": "set-ann"}
        for task, word in zip(tasks, words, strict=True)
    ]
    return "x.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode()


def flat(record: dict[str, Any], said: list[tuple[Any, str, str]]) -> dict[str, Any]:
    """A record as `to_list(flatten=True)` has it."""
    values, users, states = ([one[place] for one in said] for place in range(3))
    by_question = {"preference.responses": values, "preference.responses.users": users}
    found = {**by_question, "preference.responses.status": states} if said else {}
    return {
        "id": record["id"],
        "status": "completed",
        "_server_id": "s",
        **record["fields"],
        **record["metadata"],
        **found,
    }


def read(name: str, data: bytes, pairs: list = PAIRS, **reading: Any) -> list:
    return filled_in(data, name, pairs, Reading(**reading)).labels


def shown_first(tool: str, task: dict[str, Any]) -> tuple[str, str]:
    """The text that stands first, and the id beside it."""
    if tool == "label-studio":
        return task["data"]["answer1"], task["data"]["answer1_id"]
    if tool == "argilla":
        return task["fields"]["response_a"], task["metadata"]["response_a_id"]
    return task["options"][0]["text"], task["options"][0]["id"]


@pytest.mark.parametrize("tool", TOOLS)
def test_answers_come_back_as_the_responses_that_were_meant(tool: str) -> None:
    tasks = tasks_of(tool)
    name, data = answered(tool, tasks, CHOICES)
    labels = read(name, data)
    ids = {text.text: text.response_id for pair in PAIRS for text in (pair.response_a, pair.response_b)}
    firsts = [shown_first(tool, task) for task in tasks]
    assert all(ids[text] == response for text, response in firsts)
    assert {response[-2:] for _, response in firsts} == {"r0", "r1"}, "sides are shuffled"
    assert [label.pair_id for label in labels] == [pair.pair_id for pair in PAIRS]
    assert [label.outcome for label in labels] == ["chosen", "chosen", "tie", "both_bad"]
    assert labels[0].preferred_id == firsts[0][1]
    assert labels[1].preferred_id not in (None, firsts[1][1])
    assert [label.first_id for label in labels] == [response for _, response in firsts]
    person = {"label-studio": "2", "argilla": "u1", "prodigy": "set-ann"}[tool]
    assert {(label.annotator, label.channel) for label in labels} == {(person, "file")}
    assert {label.annotator for label in read(name, data, names={person: "ann"})} == {"ann"}
    assert labels == read(name, data, format_name=tool), "told by the rows, or by name"


@pytest.mark.parametrize("tool", TOOLS)
@given(texts=st.lists(st.tuples(TEXTS, TEXTS, TEXTS, st.sampled_from(CHOICES)), min_size=1, max_size=3))
def test_any_text_makes_the_round_trip(tool: str, texts: list[tuple[str, str, str, str]]) -> None:
    pairs = [make_comparison(n, a, b, prompt=prompt) for n, (prompt, a, b, _) in enumerate(texts)]
    words = [word for *_, word in texts]
    tasks = tasks_of(tool, pairs)
    name, data = answered(tool, tasks, words)
    labels = read(name, data, pairs)
    assert [label.pair_id for label in labels] == [pair.pair_id for pair in pairs]
    for label, word, task in zip(labels, words, tasks, strict=True):
        assert label.outcome == {"a": "chosen", "b": "chosen"}.get(word, word)
        assert (label.preferred_id == shown_first(tool, task)[1]) is (word == "a")


@pytest.mark.parametrize("tool", TOOLS)
def test_what_was_exported_waits_for_answers(tool: str) -> None:
    (content,) = (data for path, data in exported(tool).items() if "json" in path and ".argilla" not in path)
    found = filled_in(content, PLACES[tool].replace("folder", "records.json"), PAIRS, Reading())
    assert (found.labels, found.waiting) == ([], [1, 2, 3, 4])
    assert found.pair_ids == [pair.pair_id for pair in PAIRS]
    text = content.decode("ascii")
    assert not re.search(r"score|prediction\b|\"html\"", text)


def test_the_configuration_of_label_studio_asks_by_one_control_on_one_object() -> None:
    files = exported("label-studio")
    view = ElementTree.fromstring(files["tasks.xml"].decode())
    texts = {element.get("name"): element.get("value") for element in view.iter("Text")}
    (control,) = view.iter("Choices")
    assert control.get("toName") in texts
    assert control.get("choice") == "single"
    assert [(one.get("value"), one.get("hotkey")) for one in control] == [
        ("left", "1"),
        ("right", "2"),
        ("tie", "t"),
        ("both_bad", "b"),
    ]
    (task, *_) = json.loads(files["tasks.json"])
    assert list(task) == ["data"]
    assert {value.removeprefix("$") for value in texts.values()} < task["data"].keys()
    assert "id" not in task["data"], "JSON_MIN would overwrite it"


def test_a_pairwise_control_of_label_studio_is_read_and_other_controls_say_nothing() -> None:
    tasks = tasks_of("label-studio")
    pairwise = {"id": "Sba4F4tuVh", "from_name": "comparison", "to_name": "comparison", "type": "pairwise"}
    text = {"from_name": "why", "to_name": "prompt", "type": "textarea", "value": {"text": ["shorter", "clearer"]}}
    given = [
        [studio_annotation(None, result=[{**pairwise, "origin": "manual", "value": {"selected": "left"}}])],
        [studio_annotation("tie", result=[*studio_annotation("tie")["result"], text])],
        [studio_annotation(None, was_cancelled=True)],
        [studio_annotation(None)],
    ]
    found = filled_in(studio_export(tasks, given), "x.json", PAIRS, Reading())
    assert [label.outcome for label in found.labels] == ["chosen", "tie", "skip"], "no result is no tie"
    assert found.labels[0].preferred_id == tasks[0]["data"]["answer1_id"]
    assert found.labels[1].note == "shorter\nclearer"
    assert {label.seconds for label in found.labels} == {12.51}
    assert found.waiting == [4]


def test_an_answer_that_was_cancelled_skips_whatever_was_clicked_before() -> None:
    data = studio_export(tasks_of("label-studio")[:1], [[studio_annotation("left", was_cancelled=True)]])
    assert [label.outcome for label in read("x.json", data)] == ["skip"]


@pytest.mark.parametrize("turn", [1, -1])
def test_whoever_skipped_a_task_and_came_back_has_answered_it(turn: int) -> None:
    """In whatever order an export has the two; another person's skip stays."""
    skipped = studio_annotation(None, was_cancelled=True)
    given = [skipped, studio_annotation("tie"), studio_annotation(None, was_cancelled=True, completed_by=3)]
    found = filled_in(studio_export(tasks_of("label-studio")[:1], [given[::turn]]), "x.json", PAIRS, Reading())
    assert sorted((label.annotator, label.outcome) for label in found.labels) == [("2", "tie"), ("3", "skip")]
    assert (found.waiting, found.people) == ([], {"2": 1, "3": 1})
    unanswered = studio_export(tasks_of("label-studio")[:1], [[skipped, studio_annotation(None)]])
    assert [label.outcome for label in read("x.json", unanswered)] == ["skip"]


@pytest.mark.parametrize("turn", [1, -1])
def test_whoever_ignored_a_task_of_prodigy_and_came_back_has_answered_it(turn: int) -> None:
    """Prodigy keeps both; what another session ignored, and another pair, stay as they are."""
    first, second = tasks_of("prodigy")[:2]
    name, data = answered("prodigy", [first, first, first, second], ["tie", "a", "a", "a"])
    more = [{}, {"answer": "ignore"}, {"answer": "ignore", "_session_id": "set-bo"}, {"answer": "ignore"}]
    lines = [json.loads(line) | one for line, one in zip(data.splitlines(), more, strict=True)]
    labels = read(name, "".join(json.dumps(line) + "\n" for line in lines[::turn]).encode())
    assert sorted((label.pair_id, label.annotator, label.outcome) for label in labels) == [
        (first["pair_id"], "set-ann", "tie"),
        (first["pair_id"], "set-bo", "skip"),
        (second["pair_id"], "set-ann", "skip"),
    ]


def test_of_several_people_the_first_in_time_comes_first() -> None:
    late = studio_annotation(
        "left", created_at="2023-04-17T23:00:00+02:00", completed_by={"id": 7, "email": "bo@x.org"}
    )
    early = studio_annotation("tie", created_at="2023-04-17T20:59:00Z", completed_by=3)
    data = studio_export(tasks_of("label-studio")[:1], [[late, early]])
    labels = read("x.json", data, names={"3": "ann", "bo@x.org": "bo"})
    assert [(label.annotator, label.outcome) for label in labels] == [("ann", "tie"), ("bo", "chosen")]
    timed = [{"_timestamp": 20, "_session_id": "set-bo"}, {"_timestamp": 10, "_session_id": "set-ann"}]
    name, data = answered("prodigy", tasks_of("prodigy")[:1] * 2, ["a", "tie"])
    lines = [json.loads(line) | more for line, more in zip(data.splitlines(), timed, strict=True)]
    labels = read(name, "".join(json.dumps(line) + "\n" for line in lines).encode())
    assert [(label.annotator, label.outcome) for label in labels] == [("set-ann", "tie"), ("set-bo", "chosen")]
    del lines[1]["_timestamp"]
    labels = read(name, "".join(json.dumps(line) + "\n" for line in lines).encode())
    assert [label.annotator for label in labels] == ["set-bo", "set-ann"], "without all times, as in the file"


def test_statuses_of_argilla_count() -> None:
    records = tasks_of("argilla")
    said = [
        [("tie", "uuid1", "submitted"), ("a", "uuid2", "discarded")],
        [("a", "uuid1", "draft")],
        [],
        [("b", "uuid2", "submitted")],
    ]
    data = json.dumps([flat(record, one) for record, one in zip(records, said, strict=True)]).encode()
    found = filled_in(data, "x.json", PAIRS, Reading())
    assert [(label.pair_id[:7], label.annotator, label.outcome) for label in found.labels] == [
        ("p000001", "uuid1", "tie"),
        ("p000001", "uuid2", "skip"),
        ("p000004", "uuid2", "chosen"),
    ]
    assert found.waiting == [2, 3]
    assert found.people == {"uuid1": 1, "uuid2": 2}


@pytest.mark.parametrize(
    ("status", "said", "is_read"),
    [
        ("completed", ["tie"], True),
        ("pending", ["tie"], False),
        (None, ["tie"], False),
        ("completed", ["tie", "a"], False),
        ("pending", [], True),
    ],
)
def test_nested_records_of_argilla_hide_what_was_discarded(status: str | None, said: list[str], is_read: bool) -> None:
    (record, *_) = tasks_of("argilla")
    answers = [{"value": word, "user_id": f"uuid{number}"} for number, word in enumerate(said)]
    nested = {**record, "responses": {"preference": answers} if said else {}, "_server_id": "s"}
    data = json.dumps([nested | ({"status": status} if status else {})]).encode()
    if is_read:
        assert [(label.outcome, label.annotator) for label in read("x.json", data)] == [("tie", "uuid0")][: len(said)]
        return
    with pytest.raises(InvalidDataError, match="does not say which were discarded") as raised:
        read("x.json", data)
    assert "to_list(flatten=True)" in str(raised.value.hint)


def test_the_folder_for_argilla_holds_what_its_models_ask_for() -> None:
    """The rules of `DatasetModel`, `FieldModel`, `QuestionModel` and `MetadataFieldModel` of argilla 2.8."""
    files = {path.removeprefix("folder/"): json.loads(data) for path, data in exported("argilla").items()}
    assert files.keys() == {".argilla/settings.json", ".argilla/dataset.json", "records.json"}
    settings = files[".argilla/settings.json"]
    (question,) = settings["questions"]
    assert question["settings"]["type"] == "label_selection"
    assert [option["value"] for option in question["settings"]["options"]] == CHOICES
    assert question["settings"]["visible_options"] >= 3
    fields = {field["name"]: field["settings"] for field in settings["fields"]}
    assert all(field == {"type": "text", "use_markdown": False} for field in fields.values())
    for meta in settings["metadata"]:
        assert meta["name"] == meta["name"].lower()
        assert meta["type"] == meta["settings"]["type"] == "terms"
        assert meta["visible_for_annotators"] is False, "it is shown by default"
    assert re.fullmatch(r"(?![-_])[a-zA-Z0-9_ -]{1,200}", files[".argilla/dataset.json"]["name"])
    assert files[".argilla/dataset.json"]["distribution"] == {"strategy": "overlap", "min_submitted": 1}
    for record in files["records.json"]:
        assert record["fields"].keys() == fields.keys()
        assert record["metadata"].keys() == {meta["name"] for meta in settings["metadata"]}
        assert not record["suggestions"]
        assert not record["responses"]


@pytest.mark.parametrize(
    ("more", "outcomes"),
    [
        ({"answer": "ignore"}, ["skip"]),
        ({"answer": "reject"}, []),
        ({"accept": []}, []),
        ({"accept": ["tie", "both_bad"]}, []),
        ({"answer": None}, []),
        ({}, ["tie"]),
    ],
)
def test_only_one_accepted_option_of_prodigy_is_an_answer(more: dict[str, Any], outcomes: list[str]) -> None:
    name, data = answered("prodigy", tasks_of("prodigy")[:1], ["tie"])
    line = json.loads(data) | more
    found = filled_in(json.dumps(line).encode(), name, PAIRS, Reading())
    assert [label.outcome for label in found.labels] == outcomes
    assert found.waiting == ([] if outcomes else [1])


def json_min() -> Iterator[tuple[str, bytes]]:
    """As `JSON_MIN` and `CSV` write it: the data and the answer side by side."""
    rest = {
        "id": 5,
        "annotator": 2,
        "annotation_id": 68045,
        "lead_time": 12.5,
        "created_at": "2023",
        "updated_at": "2023",
    }
    found = [{**task["data"], "preference": "tie", **rest} for task in tasks_of("label-studio")]
    yield "x.json", json.dumps(found).encode()
    yield "x.csv", ",".join(found[0]).encode() + b"\n" + ",".join(str(value) for value in found[0].values()).encode()


@pytest.mark.parametrize(("name", "data"), json_min())
def test_exports_of_label_studio_that_leave_things_out_are_refused(name: str, data: bytes) -> None:
    with pytest.raises(InvalidDataError, match="no task of Label Studio's full JSON export") as raised:
        read(name, data)
    assert "leave out what was skipped" in raised.value.details[0]


def changed(tool: str, change: Callable[[list[dict[str, Any]]], Any]) -> tuple[str, bytes]:
    name, data = answered(tool, tasks_of(tool), CHOICES)
    tasks = [json.loads(line) for line in data.splitlines()] if tool == "prodigy" else json.loads(data)
    change(tasks)
    return name, "\n".join(map(json.dumps, tasks)).encode() if tool == "prodigy" else json.dumps(tasks).encode()


@pytest.mark.parametrize(
    ("tool", "change", "said"),
    [
        (
            "label-studio",
            lambda tasks: tasks[1]["data"].update(answer2="other"),
            "task 2, annotation 68045: the response_b",
        ),
        ("label-studio", lambda tasks: tasks[1]["data"].pop("answer1_id"), "item 2 lacks `answer1_id` in its data"),
        ("label-studio", lambda tasks: tasks[1].update(annotations={"a": 1}), "item 2: annotations is"),
        ("label-studio", lambda tasks: tasks[1]["annotations"][0].update(result=["x"]), "68045: a result is"),
        ("label-studio", lambda tasks: tasks[1]["annotations"][0].update(lead_time=-1), "seconds is `-1`"),
        ("label-studio", lambda tasks: tasks[1]["annotations"][0].update(completed_by=[1]), "names nobody"),
        (
            "label-studio",
            lambda tasks: tasks[1]["annotations"][0]["result"][0]["value"].update(choices=["left", "tie"]),
            "says `left` and `tie`",
        ),
        (
            "label-studio",
            lambda tasks: tasks[1]["annotations"][0]["result"][0]["value"].update(choices=["rihgt"]),
            "the preference is `rihgt`",
        ),
        (
            "label-studio",
            lambda tasks: tasks[1]["annotations"].append(studio_annotation("tie", id=9)),
            "task 2, annotation 9: pair `p000002/i001/r0-r1` has another answer in task 2, annotation 68045",
        ),
        ("argilla", lambda tasks: tasks[1].pop("preference.responses.status"), "item 2 does not say of each answer"),
        ("argilla", lambda tasks: tasks[1].update({"preference.responses.status": [None]}), "an answer is `None`"),
        ("argilla", lambda tasks: tasks[1].update({"preference.responses": ["left"]}), "the answer `left` is none"),
        ("argilla", lambda tasks: tasks[1].update({"preference.responses": [{"a": 1}]}), "item 2: an answer is"),
        ("argilla", lambda tasks: tasks[1].pop("pair_id"), "item 2 lacks `pair_id`"),
        ("argilla", lambda tasks: tasks[1].update(response_a="other"), "record 2: the response_a"),
        ("prodigy", lambda tasks: tasks[1].update(accept=["r9"]), "accepts `r9`, which is none of its options"),
        ("prodigy", lambda tasks: tasks[1].update(answer="maybe"), "the answer is `maybe`"),
        ("prodigy", lambda tasks: tasks[1]["options"].pop(0), "line 2 offers 1 response, not two"),
        ("prodigy", lambda tasks: tasks[1].update(text="other"), "task 2: the prompt of pair"),
        ("prodigy", lambda tasks: tasks[1].pop("pair_id"), "line 2 has no `pair_id`"),
        ("prodigy", lambda tasks: tasks[1].update(pair_id="p9"), "pair `p9` is not one of those"),
        ("prodigy", lambda tasks: tasks[1].update(_session_id=5), "`annotator` is no text"),
    ],
)
def test_a_problem_is_told_with_its_place(tool: str, change: Callable[[list], Any], said: str) -> None:
    with pytest.raises(InvalidDataError) as raised:
        read(*changed(tool, change))
    assert said in "\n".join([raised.value.message, *raised.value.details])


STRANGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["tie", 10**400]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "type", "value"]), inner, max_size=2)
    ),
    max_leaves=3,
)


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every part of a value, as the list or object that holds it and where."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from places_in(inner)


@pytest.mark.parametrize("tool", TOOLS)
@given(chance=st.randoms(use_true_random=False), strange=STRANGE)
def test_a_file_with_anything_in_it_is_read_or_refused(tool: str, chance: random.Random, strange: Any) -> None:
    def spoil(tasks: list[dict[str, Any]]) -> None:
        holder, key = chance.choice(list(places_in(tasks)))
        holder[key] = strange

    with contextlib.suppress(InvalidDataError):
        for label in read(*changed(tool, spoil), format_name=tool):
            assert label.outcome in ("chosen", "tie", "both_bad", "skip")


def test_a_table_may_hold_the_answers_of_several_people() -> None:
    asked = [json.loads(line) for line in export_pairs(PAIRS[:1], "x.jsonl", seed=0).decode().splitlines()]
    said = [asked[0] | {"annotator": "ann", "preference": "a"}, asked[0] | {"annotator": "bo", "preference": "tie"}]
    data = "\n".join(map(json.dumps, said)).encode()
    assert [(label.annotator, label.outcome) for label in read("x.jsonl", data)] == [("ann", "chosen"), ("bo", "tie")]
    nameless = "\n".join(map(json.dumps, [said[0], said[1] | {"annotator": ""}])).encode()
    with pytest.raises(InvalidDataError) as raised:
        read("x.jsonl", nameless)
    assert "has another answer in line 1" in raised.value.details[0]


@pytest.mark.parametrize("texts", [["ann"], ["=ann"], ["2="], ["2=ann", "2=bo"]])
def test_a_name_is_given_by_an_equals_sign(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="gives nobody a name"):
        Reading.of({"map": texts})


def test_a_name_for_somebody_who_is_not_there_is_refused() -> None:
    name, data = answered("label-studio", tasks_of("label-studio"), CHOICES)
    with pytest.raises(UsageError, match="`5` answered nothing in `x.json`") as raised:
        read(name, data, names={"5": "ann"})
    assert list(raised.value.details) == ["who did: `2`"]


@pytest.mark.parametrize(
    ("name", "tool", "said"),
    [
        ("x.json", None, "neither in .jsonl nor in .csv"),
        ("x.jsonl", "label-studio", "does not end in .json, as a file of label-studio does"),
        ("x.csv", "jsonl", "does not end in .jsonl"),
        ("x.json", "argilla", "argilla takes a folder"),
        ("x.jsonl", "prodgy", "did you mean `prodigy`"),
    ],
)
def test_a_name_that_does_not_fit_the_format(name: str, tool: str | None, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        format_to_write(name, tool)
    assert said in raised.value.message


@pytest.mark.parametrize("name", discovery.available("formats"))
def test_every_format_offers_what_one_must(name: str) -> None:
    module = discovery.load("formats", name)
    asked = dict.fromkeys(COLUMNS, "x") | {"seconds": None}
    files = module.render([asked], Path("folder/x").with_suffix(module.SUFFIX), "title")
    assert all(path.parts[0] == "folder" and isinstance(content, bytes) for path, content in files.items())
    assert module.recognises({}) is False
    assert list(module.answers([])) == []
    assert module.UNIT
    assert module.RETURN


@pytest.fixture
def asked(finished: Path) -> Path:
    """A run whose second iteration waits for people: 4 pairs."""
    for stage in STAGES[3:]:
        shutil.rmtree(finished / "iter-002" / stage)
    return finished


def label(run: Path, *words: object):
    return activedpo(*on(run, "label", iteration=2), "--oracle", "human", *words)


def test_out_to_label_studio_and_back_by_two_people(asked: Path, tmp_path: Path) -> None:
    path, back = tmp_path / "tasks.json", tmp_path / "project.json"
    result = label(asked, "--export", path, "--format", "label-studio")
    assert result.exit_code == 5
    assert "tasks.xml" in {file.name for file in tmp_path.iterdir()}
    assert "--import ANSWERS`" in " ".join(result.stderr.split())
    assert "is there already" in label(asked, "--export", path, "--format", "label-studio").stderr
    (tmp_path / "tasks.xml").unlink()
    assert label(asked, "--export", path, "--format", "label-studio").exit_code == 5
    assert (tmp_path / "tasks.xml").exists(), "what an interruption left out is written"
    tasks = json.loads(path.read_bytes())
    later = studio_annotation("tie", completed_by=3, created_at="2024-01-01T00:00:00Z")
    given = [[studio_annotation("left")], [later, studio_annotation("right")], [studio_annotation("tie")], []]
    back.write_bytes(studio_export(tasks, given))
    result = label(asked, "--import", back, "--map", "2=ann")
    assert result.exit_code == 5
    said = " ".join(result.stderr.split())
    assert "4 new answers" in said
    assert "1 of them by further people" in said
    assert "1 task has no preference yet (task 4)" in said
    assert "`3` (1); `--map 3=NAME`" in said
    events = [row["label"] for row in rows(asked / "iter-002" / "label" / "labels.jsonl")]
    assert [(event["annotator"], event["role"], event["outcome"]) for event in events] == [
        ("ann", "selected", "chosen"),
        ("ann", "selected", "chosen"),
        ("3", "overlap", "tie"),
        ("ann", "selected", "tie"),
    ]
    given[3] = [studio_annotation(None, was_cancelled=True)]
    back.write_bytes(studio_export(tasks, given))
    done(*on(asked, "label", iteration=2), "--import", back, "--map", "2=ann")
    outcomes = rows(asked / "iter-002" / "label" / "outcomes.jsonl")
    assert [row["outcome"] for row in outcomes] == ["chosen", "chosen", "tie", "skip"]
    assert outcomes[1]["preferred_id"] == tasks[1]["data"]["answer2_id"], "the first in time trains"
    assert manifest(asked, 2, "label")["summary"]["measuring"] == {"overlap": 1}
    assert "there already" in done(*on(asked, "label", iteration=2), "--import", back, "--map", "2=ann").stderr
    said = done(*on(asked, "label", iteration=2), "--export", path, "--format", "label-studio").stderr
    assert "is there already, with 4 pairs" in " ".join(said.split())
    back.write_bytes(studio_export(tasks, [[studio_annotation("tie")], *given[1:]]))
    message = " ".join(refused(3, *on(asked, "label", iteration=2), "--import", back, "--map", "2=ann").split())
    assert "answers otherwise than what stands" in message
    assert f"--import {back} --map 2=ann --ask-again" in message


def test_a_name_that_is_given_late_or_forgotten_makes_nobody_a_second_person(asked: Path, tmp_path: Path) -> None:
    """But two servers may both have a user 1: who has two given names is two people."""
    path, back = tmp_path / "tasks.json", tmp_path / "project.json"
    label(asked, "--export", path, "--format", "label-studio")
    tasks = json.loads(path.read_bytes())
    back.write_bytes(studio_export(tasks, [[studio_annotation("left")], [studio_annotation("tie")], [], []]))
    assert "2 new answers" in label(asked, "--import", back, "--map", "2=ann").stderr
    said = " ".join(label(asked, "--import", back).stderr.split())
    assert "0 new answers" in said
    assert "answers of `2` stand already under the name `ann`" in said
    said = " ".join(label(asked, "--import", back, "--map", "2=bo").stderr.split())
    assert "2 new answers" in said
    assert "2 of them by further people" in said
    given = [
        [studio_annotation("left")],
        [studio_annotation("tie")],
        [studio_annotation("tie")],
        [studio_annotation("left")],
    ]
    back.write_bytes(studio_export(tasks, given))
    done(*on(asked, "label", iteration=2), "--oracle", "human", "--import", back)
    said = " ".join(done(*on(asked, "label", iteration=2), "--import", back, "--map", "2=ann").stderr.split())
    assert "all 4 answers" in said
    labels = [row["label"] for row in rows(asked / "iter-002" / "label" / "labels.jsonl")]
    assert [one["annotator"] for one in labels] == ["ann", "ann", "bo", "bo", "2", "2"]


def test_out_to_argilla_and_back(asked: Path, tmp_path: Path) -> None:
    folder, back = tmp_path / "out", tmp_path / "records.json"
    assert label(asked, "--export", folder, "--format", "argilla", "--annotator", "ann").exit_code == 5
    assert json.loads((folder / ".argilla/dataset.json").read_bytes())["name"] == "finished-iter-002-ann"
    records = json.loads((folder / "records.json").read_bytes())
    before = label(asked, "--import", folder)
    assert "4 records have no preference yet (records 1, 2, 3, 4)" in " ".join(before.stderr.split())
    back.write_text(json.dumps([flat(record, [("a", "uuid1", "submitted")]) for record in records]))
    done(*on(asked, "label", iteration=2), "--oracle", "human", "--import", back, "--map", "uuid1=ann")
    outcomes = rows(asked / "iter-002" / "label" / "outcomes.jsonl")
    assert [row["preferred_id"] for row in outcomes] == [record["metadata"]["response_a_id"] for record in records]
    assert (
        "is there already" in done(*on(asked, "label", iteration=2), "--export", folder, "--format", "argilla").stderr
    )


def test_files_of_others_are_never_written_over(asked: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks.xml").write_text("<View/>")
    said = refused(
        2,
        *on(asked, "label", iteration=2),
        "--oracle",
        "human",
        "--export",
        tmp_path / "tasks.json",
        "--format",
        "label-studio",
    )
    assert "tasks.xml` exists" in " ".join(said.split()).replace(" tasks.xml", "tasks.xml")
    assert not (tmp_path / "tasks.json").exists()


def test_options_of_a_file_without_a_file(asked: Path) -> None:
    assert "--import FILE" in refused(2, *on(asked, "label"), "--map", "2=ann")
    assert "--export FILE" in refused(2, *on(asked, "label"), "--format", "csv")
