"""Responses made elsewhere arrive whole, in any known shape, and join the prompts of a run exactly."""

import collections
import csv
import decimal
import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.records import Prompt, RecordedPreference
from activedpo_cli.generate.backends._recorded import (
    match_to_prompts,
    read_preferences,
    read_recorded,
    read_recorded_pairs,
)

QUESTION = [{"role": "user", "content": "Q"}]


def written(folder, *rows, name="responses.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer(text):
    return [{"role": "assistant", "content": text}]


def shared_file(name):
    folder = Path(os.environ.get("ACTIVEDPO_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
    if not (folder / name).exists():
        pytest.skip(f"needs {name}: set ACTIVEDPO_DATA to the folder that holds it")
    return folder / name


def plain_rows(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).split(b"\n") if line]


def test_responses_in_a_list(tmp_path):
    row = {
        "prompt": "Q",
        "bucket": 3,
        "responses": [
            "plain",
            {"text": "one", "rm": 1, "second": None, "models": ["m"], "good": True, "finish_reason": "length"},
            {"response": "two", "rm": -0.5, "finish_reason": "content_filter"},
            {"completion": "", "note": "empty"},
        ],
    }
    [found] = read_recorded(written(tmp_path, row))
    assert [(r.text, r.scores, r.finish_reason) for r in found.responses] == [
        ("plain", {}, None),
        ("one", {"rm": 1.0, "good": 1.0}, "length"),
        ("two", {"rm": -0.5}, None),
        ("", {}, None),
    ]
    assert (found.prompt, found.preferences, found.origin) == ("Q", [], "responses.jsonl line 1")


def test_flat_rows_of_one_prompt_are_gathered(tmp_path):
    found = read_recorded(
        written(
            tmp_path,
            {"prompt": "Q", "response": "one", "rm": 1.0},
            {"prompt": "R", "response": "one", "rm": 5.0},
            {"prompt": "Q", "response": "two", "rm": 2.0},
            {"prompt": "Q", "response": "one", "rm": 2.0, "length": 3, "finish_reason": "stop"},
            {"prompt": QUESTION * 2, "response": answer("one")},
            {"prompt": QUESTION, "response": answer("three")},
        )
    )
    assert [item.prompt for item in found] == ["Q", "R", QUESTION * 2]
    assert [(r.text, r.scores, r.finish_reason) for r in found[0].responses] == [
        ("one", {"rm": 1.5, "length": 3.0}, "stop"),
        ("two", {"rm": 2.0}, None),
        ("three", {}, None),
    ]
    assert found[2].responses[0].text == "one"


def test_scores_in_csv_are_numbers(tmp_path):
    path = tmp_path / "responses.csv"
    path.write_text("prompt,response,rm,source,batch\nQ,3,0.5,human,1_0\nQ,four,,model,\n")
    [found] = read_recorded(path)
    assert [(r.text, r.scores) for r in found.responses] == [("3", {"rm": 0.5}), ("four", {})]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "good", "rejected": "bad"},
        {"prompt": QUESTION, "chosen": answer("good"), "rejected": answer("bad")},
        {"chosen": QUESTION + answer("good"), "rejected": QUESTION + answer("bad")},
        {"prompt": "Q", "response_a": "bad", "response_b": "good", "preference": "b"},
        {"prompt": "Q", "response_a": "good", "response_b": "bad", "preference": "a"},
    ],
)
def test_preferences_in_every_shape(tmp_path, row):
    path = written(tmp_path, row)
    [found] = read_recorded(path)
    [(index_a, index_b, preferred)] = found.preferences
    assert {index_a, index_b} == {0, 1}
    assert found.responses[preferred].text == "good"
    assert found.prompt in ("Q", QUESTION)
    [preference], _ = read_preferences(path)
    assert preference == (found.prompt, "good", "bad", "responses.jsonl line 1", 1)


def test_verdicts_that_order_nothing(tmp_path):
    rows = [
        {"prompt": "Q", "response_a": "x", "response_b": "y", "preference": verdict}
        for verdict in ("tie", None, "", "skip", "both_bad")
    ]
    path = written(tmp_path, *rows, {"prompt": "Q", "response_a": "x", "response_b": "y"})
    [found] = read_recorded(path)
    assert [response.text for response in found.responses] == ["x", "y"]
    assert found.preferences == [(0, 1, None)]
    with pytest.raises(InvalidDataError, match="holds no preferences"):
        read_preferences(path)


@pytest.mark.parametrize("read", [read_recorded, read_recorded_pairs])
def test_answers_that_are_no_preference_are_counted_by_name(tmp_path, read):
    """What was skipped stays a pair, and somebody answered it: neither is to be lost without a word."""
    answers = ["a", "skip", "Both bad", "", "both-bad", None, "tie", " SKIP "]
    rows = [
        {"prompt": f"Q{n}", "response_a": "x", "response_b": "y", "preference": answer}
        for n, answer in enumerate(answers)
    ]
    said: list[str] = []
    read(written(tmp_path, *rows), said.append)
    assert said == [
        "2 rows have the answer `both_bad`, which is no preference between the two (lines 3, 5)",
        "2 rows have the answer `skip`, which is no preference between the two (lines 2, 8)",
    ]


def test_a_verdict_under_another_name_is_told_of(tmp_path):
    rows = [
        {"prompt": f"Q{n}", "response_a": "x", "response_b": "y", "Winner": who} for n, who in enumerate(["a", "b", ""])
    ]
    said: list[str] = []
    [first, *_] = read_recorded(written(tmp_path, *rows), said.append)
    assert first.preferences == []
    what = "no `preference`, and `Winner` is not read: rename it where it says a, b or tie"
    assert said == [f"2 rows have {what} (lines 1, 2)"]
    with pytest.raises(InvalidDataError, match="holds no preferences") as caught:
        read_preferences(written(tmp_path, *rows))
    assert said[0] in caught.value.details
    more = {"prompt": "R", "response_a": "x", "response_b": "y", "preference": "a"}
    assert len(read_preferences(written(tmp_path, *rows, more), said.append)[0]) == 1
    assert said[1:] == said[:1]


def test_rows_that_measure_nothing_are_named(tmp_path):
    pair = {"prompt": "Q", "chosen": "x", "rejected": "y"}
    rows = [pair, pair | {"rejected": " "}, pair | {"chosen": ""}, pair | {"chosen": "y"}, pair | {"prompt": "\n"}]
    preferences, left_out = read_preferences(written(tmp_path, *rows, pair))
    assert [row.line for row in preferences] == [1, 6]
    assert {why: lines for why, lines in left_out.lines.items() if lines} == {
        "empty_response": [2, 3],
        "equal_responses": [4],
        "empty_prompt": [5],
    }


@pytest.mark.parametrize("nothing", ["", " \t", None])
def test_nothing_is_left_out_alike_however_it_is_spelled(tmp_path, nothing):
    rows = [
        {"prompt": "Q", "chosen": "x", "rejected": "y"},
        {"prompt": nothing, "chosen": "x", "rejected": "y"},
        {"prompt": "Q", "chosen": nothing, "rejected": "z"},
        {"prompt": "Q", "chosen": "z", "rejected": nothing},
        {"prompt": "Q", "response_a": "z", "response_b": nothing, "preference": "a"},
    ]
    path = written(tmp_path, *rows)
    preferences, left_out = read_preferences(path)
    assert [row.line for row in preferences] == [1]
    expected = {"empty_prompt": [2], "empty_response": [3, 4, 5]}
    for found in (left_out, read_recorded_pairs(path).left_out):
        assert {reason: lines for reason, lines in found.lines.items() if lines} == expected
    said: list[str] = []
    responses = [{"prompt": "Q", "response": nothing}, {"prompt": "Q", "responses": ["x", {"text": nothing, "rm": 1}]}]
    read_recorded(
        written(tmp_path, *responses, {"prompt": "R", "responses": None if nothing is None else []}), said.append
    )
    assert said == [
        "1 row has no response (line 3)",
        "2 rows have a response without text, which forms no pair (lines 1, 2)",
    ]


def test_columns_that_only_other_rows_fill_are_no_part_of_a_row(tmp_path):
    """As Arrow has a table of rows of several shapes: every row has the columns of all."""
    turns = [{"role": "user", "content": "S"}, *answer("x")]
    rows = [
        {"prompt": "Q", "chosen": "x", "rejected": "y"},
        {"prompt": "R", "response_a": "x", "response_b": "y", "preference": "b"},
        {"chosen": turns, "rejected": [turns[0], *answer("y")]},
        {"instruction": "T", "chosen": "x", "rejected": "y"},
    ]
    names = {name for row in rows for name in row} | {"responses", "completion"}
    path = written(tmp_path, *(dict.fromkeys(names) | row for row in rows))
    preferences, left_out = read_preferences(path)
    assert [row[:3] for row in preferences] == [
        ("Q", "x", "y"),
        ("R", "y", "x"),
        (turns[:1], "x", "y"),
        ("T", "x", "y"),
    ]
    assert left_out.in_words() == ""
    assert len(read_recorded_pairs(path).prompts) == 4


def test_a_row_without_text_says_nothing_of_whether_prompts_are_repeated(tmp_path):
    asked = [f"Which of these is the better, question {n}: " for n in range(3)]
    whole = [{"prompt": prompt, "chosen": f"{prompt}good", "rejected": f"{prompt}bad"} for prompt in asked]
    preferences, left_out = read_preferences(written(tmp_path, *whole, {"prompt": "S", "chosen": "", "rejected": None}))
    assert [row.chosen for row in preferences] == ["good"] * 3
    assert left_out.lines["empty_response"] == [4]


def test_contradictory_and_empty_verdicts_stay_visible(tmp_path):
    rows = [{"prompt": "Q", "chosen": a, "rejected": b} for a, b in ("xy", "yx", "xx", "zx")]
    path = written(tmp_path, *rows)
    [found] = read_recorded(path)
    assert [response.text for response in found.responses] == ["x", "y", "z"]
    assert found.preferences == [(0, 1, 0), (1, 0, 1), (2, 0, 2)]
    assert found.identical_preferences == 1
    said: list[str] = []
    read_recorded(path, said.append)
    read_recorded(written(tmp_path, {"prompt": "Q", "responses": ["x", " "]}), said.append)
    assert said == [
        "1 row has a preference between equal texts, which says nothing (line 3)",
        "1 row has a response without text, which forms no pair (line 1)",
    ]
    path = written(tmp_path, *rows)
    preferences, left_out = read_preferences(path)
    assert len(preferences) == 3
    assert left_out.lines["equal_responses"] == [3]


def test_a_repeated_prompt_is_cut_only_where_the_whole_file_repeats_it(tmp_path):
    question = "A long question, Q:"
    repeating = {"prompt": question, "chosen": f"{question} yes", "rejected": f"{question} no"}
    path = written(tmp_path, repeating, {"prompt": "R:", "chosen": "R: a", "rejected": "R: b"})
    assert [item[1:3] for item in read_preferences(path)[0]] == [(" yes", " no"), (" a", " b")]
    path = written(tmp_path, repeating, {"prompt": "R:", "chosen": "R: a", "rejected": "b"})
    assert [item[1:3] for item in read_preferences(path)[0]] == [(f"{question} yes", f"{question} no"), ("R: a", "b")]


GREETINGS = ["Hi", "Hello", "Hey", "Good day"]


@pytest.mark.parametrize("others", [0, 1])
def test_answers_that_merely_begin_with_a_short_prompt_stay(tmp_path, others):
    """Also where most rows do so and one does not, which then is no reason to refuse the file."""
    rows = [{"prompt": text, "chosen": f"{text} there!", "rejected": f"{text}."} for text in GREETINGS]
    rows += [{"prompt": "Bye", "chosen": "See you", "rejected": "Bye."}] * others
    said: list[str] = []
    preferences, _ = read_preferences(written(tmp_path, *rows), said.append)
    assert [row[1:3] for row in preferences] == [(row["chosen"], row["rejected"]) for row in rows]
    assert said == [
        f"what answers the prompt begins with its text in 4 of {4 + others} rows (lines 1, 2, 3, 4), and stays as it is"
    ]


def test_many_short_prompts_that_all_answers_repeat_are_cut(tmp_path):
    rows = [{"prompt": f"{n} + 1 =", "chosen": f"{n} + 1 = {n + 1}", "rejected": f"{n} + 1 = 0"} for n in range(20)]
    preferences, _ = read_preferences(written(tmp_path, *rows))
    assert [row[1:3] for row in preferences] == [(f" {n + 1}", " 0") for n in range(20)]
    preferences, _ = read_preferences(written(tmp_path, *rows[:3]))
    assert preferences[0][1] == "0 + 1 = 1"


SHORT = {"Name a fruit.": ("A fig.", "No."), "Tell a joke.": ("Ha.", "Go away."), "Sing.": ("La.", "Hm.")}


@pytest.mark.parametrize("odd", [None, "Sing. ", "\nSing.", "Sing.\r\n"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_few_prompts_of_three_words_are_cut_from_answers_that_all_repeat_them(tmp_path, suffix, odd):
    """Three words and four answers: the two of a greeting are no such prompts; white space around a prompt may differ."""
    rows = [{"prompt": p, "chosen": f"{p} {a}", "rejected": f"{p} {b}"} for p, (a, b) in SHORT.items()]
    rows[-1]["prompt"] = odd or rows[-1]["prompt"]
    path = written(tmp_path, *rows)
    if suffix == "csv":
        path = tmp_path / "rows.csv"
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, ["prompt", "chosen", "rejected"])
            table.writeheader()
            table.writerows(rows)
    said: list[str] = []
    preferences, _ = read_preferences(path, said.append)
    assert [tuple(map(str.strip, row[1:3])) for row in preferences] == list(SHORT.values())
    assert said == ["the prompt was taken off the start of what answers it in 3 rows"]


def test_a_row_that_does_not_repeat_its_short_prompt_as_most_do_is_named(tmp_path):
    rows = [{"prompt": p, "chosen": f"{p} {a}", "rejected": f"{p} {b}"} for p, (a, b) in SHORT.items()]
    with pytest.raises(InvalidDataError, match="line 4 does not repeat its prompt"):
        read_preferences(written(tmp_path, *rows, rows[0] | {"prompt": "name a fruit."}))


def test_two_answers_that_begin_with_three_words_stay(tmp_path):
    row = {"prompt": "I love you", "chosen": "I love you too", "rejected": "I love you not"}
    [kept], _ = read_preferences(written(tmp_path, row))
    assert kept[1:3] == ("I love you too", "I love you not")


def test_a_prompt_that_messages_repeat_is_cut_and_white_space_within_it_may_differ(tmp_path):
    asked = "Name a fruit,\r\nand say why."
    user, answers = [{"role": "user", "content": asked}], [f"Name a fruit, and  say why. {text}" for text in "xy"]
    sides = [[{"role": "assistant", "content": text}] for text in answers]
    [row], _ = read_preferences(written(tmp_path, {"prompt": user, "chosen": sides[0], "rejected": sides[1]}))
    assert row[1:3] == (" x", " y")
    joined = {"prompt": asked, "chosen": "Name a fruit,and say why. x", "rejected": answers[1]}
    [row], _ = read_preferences(written(tmp_path, joined))
    assert row[1] == joined["chosen"], "words that run together are another text"


def _said(role, text):
    return {"role": role, "content": text}


@pytest.mark.parametrize(
    "shape",
    [
        lambda asked, text: ([_said("user", [{"type": "text", "text": asked}])], text),
        lambda asked, text: ([_said("system", "Be kind."), _said("user", asked)], text),
        lambda asked, text: ([_said("user", "Hi"), _said("assistant", "Hi!"), _said("user", asked)], text),
        lambda asked, text: (asked, [_said("user", asked), _said("assistant", text)]),
        lambda asked, text: (None, [_said("user", asked), _said("assistant", text)]),
        lambda asked, text: (None, [{"from": "human", "value": asked}, {"from": "gpt", "value": text}]),
    ],
)
def test_what_answers_the_last_of_several_messages_loses_its_text(tmp_path, shape):
    """However the rows spell the messages, those that are asked and those that answer."""
    rows = []
    for asked, answers in SHORT.items():
        sides = [shape(asked, f"{asked} {answer}") for answer in answers]
        rows.append({"prompt": sides[0][0], "chosen": sides[0][1], "rejected": sides[1][1]})
    said: list[str] = []
    preferences, _ = read_preferences(written(tmp_path, *rows), said.append)
    assert [tuple(map(str.strip, row[1:3])) for row in preferences] == list(SHORT.values())
    assert said == ["the prompt was taken off the start of what answers it in 3 rows"]


WHOLE = "\n\nHuman: What is a prime number?\n\nAssistant:"


@pytest.mark.parametrize(
    "shape",
    [
        lambda a, b: [{"responses": [a, b]}],
        lambda a, b: [{"responses": [{"text": a, "s": 1}, {"text": b, "s": 2}]}],
        lambda a, b: [{"response": a, "s": 1}, {"response": b, "s": 2}],
        lambda a, b: [{"response_a": a, "response_b": b, "preference": "a"}],
        lambda a, b: [{"chosen": a, "rejected": b}],
    ],
)
def test_responses_of_every_shape_lose_a_prompt_that_all_repeat(tmp_path, shape):
    """Transcripts, and what engines give that return the full text."""
    rows = [{"prompt": WHOLE} | row for row in shape(f"{WHOLE} One.", f"{WHOLE} Two.")]
    said: list[str] = []
    [found] = read_recorded(written(tmp_path, *rows), said.append)
    assert [response.text for response in found.responses] == [" One.", " Two."]
    s = "" if len(rows) == 1 else "s"
    assert said == [f"the prompt was taken off the start of what answers it in {len(rows)} row{s}"]


@pytest.mark.parametrize(
    ("fields", "is_cut"),
    [
        ({"text": f"{WHOLE} One.", "completion": " One."}, False),
        ({"text": " One.", "completion": f"{WHOLE} One."}, True),
        ({"text": None, "response": f"{WHOLE} One."}, True),
        ({"text": None, "response": " One."}, False),
        ({"completion": None, "response": f"{WHOLE} One."}, True),
        ({"responses": [{"text": None, "response": f"{WHOLE} One."}]}, True),
        ({"responses": [{"text": f"{WHOLE} One.", "response": " Two."}]}, True),
    ],
)
def test_the_column_that_is_read_says_whether_it_repeats_its_prompt(tmp_path, fields, is_cut):
    said: list[str] = []
    [found] = read_recorded(written(tmp_path, {"prompt": WHOLE} | fields), said.append)
    assert [response.text for response in found.responses] == [" One."]
    assert said == (["the prompt was taken off the start of what answers it in 1 row"] if is_cut else [])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Q"}, "has no `prompt`"),
        ({"prompt": "Q"}, "has no responses"),
        ({"prompt": "Q", "response_a": "x"}, "has no responses"),
        ({"prompt": " ", "response": "x"}, "the prompt is empty"),
        ({"prompt": "Q", "responses": "x"}, "`responses` is a list, not 'x'"),
        ({"prompt": "Q", "responses": ["x", 3]}, "response 2: a response is text, not 3"),
        ({"prompt": "Q", "responses": [{"rm": 1}]}, "response 1 has no `text`"),
        ({"prompt": "Q", "responses": ["x", "y"], "chosen": 0}, "has a `chosen` beside `responses`"),
        ({"prompt": "Q", "chosen": "x"}, "only one of `chosen` and `rejected`"),
        ({"chosen": "Qx", "rejected": "Qy"}, "has no `prompt`"),
        ({"chosen": QUESTION + answer("x"), "rejected": answer("y")}, "differ before their last message"),
        ({"chosen": QUESTION + QUESTION, "rejected": QUESTION + answer("y")}, "one message of the assistant"),
        ({"chosen": answer("x"), "rejected": answer("y")}, "the prompt is empty"),
        ({"prompt": "Q", "response": answer("x") * 2}, "one message of the assistant, not 2"),
        ({"prompt": "Q", "response_a": "x", "response_b": "y", "preference": "left"}, "not 'left'"),
        ({"prompt": "Q", "response_a": "x", "response_b": "y", "preference": ["a"]}, "not ['a']"),
    ],
)
def test_refusals_name_the_row(tmp_path, row, message):
    path = written(tmp_path, {"prompt": "first", "response": "x"}, row)
    with pytest.raises(InvalidDataError) as caught:
        read_recorded(path)
    assert caught.value.message.startswith("responses.jsonl line 2")
    assert message in caught.value.message


def test_matching_joins_on_exact_content(tmp_path):
    recorded = read_recorded(
        written(
            tmp_path,
            {"prompt": "elsewhere", "response": "x"},
            {"prompt": "Q", "responses": [{"text": "x", "rm": 1.0, "finish_reason": "stop"}, "y", ""]},
            {"prompt": "Q", "chosen": "y", "rejected": "x"},
            {"prompt": "Q", "response_a": "x", "response_b": "y", "preference": "tie"},
        )
    )
    prompts = [
        Prompt(prompt_id=f"p{number:06d}", split="train", prompt=text)
        for number, text in enumerate([[{"role": "system", "content": "Q"}], "Q ", "Q"])
    ]
    match = match_to_prompts(recorded, prompts)
    assert [(r.response_id, r.index, r.text, r.scores, r.finish_reason) for r in match.pool] == [
        ("p000002/pool/r0", 0, "x", {"rm": 1.0}, "stop"),
        ("p000002/pool/r1", 1, "y", None, "recorded"),
        ("p000002/pool/r2", 2, "", None, "recorded"),
    ]
    ids = {"prompt_id": "p000002", "response_a_id": "p000002/pool/r1", "response_b_id": "p000002/pool/r0"}
    assert match.preferences == [
        RecordedPreference(**ids, preferred_id="p000002/pool/r1"),
        RecordedPreference(
            prompt_id="p000002",
            response_a_id="p000002/pool/r0",
            response_b_id="p000002/pool/r1",
            preferred_id=None,
        ),
    ]
    assert (match.prompts_without_responses, match.unmatched) == (2, 1)


def test_nothing_matched_shows_one_prompt_of_each_side(tmp_path):
    recorded = read_recorded(written(tmp_path, {"prompt": "theirs", "response": "x"}))
    with pytest.raises(InvalidDataError, match="no recorded response belongs to a prompt") as caught:
        match_to_prompts(recorded, [Prompt(prompt_id="p000000", split="train", prompt="ours")])
    assert "theirs" in caught.value.details[0]
    assert "ours" in caught.value.details[1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("QRS"), st.sampled_from(["x", "y", ""]), st.integers(-3, 3)), min_size=1, max_size=12
    )
)
def test_flat_and_listed_rows_say_the_same(tmp_path, rows):
    flat = read_recorded(written(tmp_path, *({"prompt": p, "response": r, "rm": s} for p, r, s in rows)))
    by_prompt = collections.defaultdict(list)
    for prompt, text, score in rows:
        by_prompt[prompt].append({"text": text, "rm": score})
    listed = read_recorded(written(tmp_path, *({"prompt": p, "responses": r} for p, r in by_prompt.items())))
    assert [item.responses for item in flat] == [item.responses for item in listed]
    for item in flat:
        for response in item.responses:
            values = [score for prompt, text, score in rows if (prompt, text) == (item.prompt, response.text)]
            assert response.scores["rm"] == pytest.approx(sum(values) / len(values))


@pytest.fixture(scope="module")
def scored_wide():
    """The rows of the wide file, and what is read of it."""
    path = shared_file("scored_responses_wide.jsonl.gz")
    return plain_rows(path), read_recorded(path)


@pytest.fixture(scope="module")
def scored_deep():
    """The same of the deep file."""
    path = shared_file("scored_responses_deep.jsonl.gz")
    return plain_rows(path), read_recorded(path)


@pytest.mark.parametrize("name", ["scored_wide", "scored_deep"])
def test_real_scored_responses_arrive_whole(name, request):
    rows, recorded = request.getfixturevalue(name)
    expected = {
        (row["prompt"], response["text"], field, response[field])
        for row in rows
        for response in row["responses"]
        for field in ("rm_test", "rm_train")
        if response[field] is not None
    }
    found = {
        (item.prompt, response.text, field, value)
        for item in recorded
        for response in item.responses
        for field, value in response.scores.items()
    }
    assert found == expected
    assert sum(len(item.responses) for item in recorded) == sum(len(row["responses"]) for row in rows)
    assert len(recorded) == len({row["prompt"] for row in rows})


def test_real_scored_responses_have_the_published_size(scored_wide):
    rows, recorded = scored_wide
    assert (len(rows), sum(len(item.responses) for item in recorded)) == (3122, 19017)


def test_real_preferences_lose_only_their_repeated_prompt():
    path = shared_file("hh_hard_pairs.jsonl.gz")
    rows = plain_rows(path)
    preferences, left_out = read_preferences(path)
    assert len(rows) == 8000
    assert len(preferences) == 8000 - len(left_out.lines["equal_responses"]) == 8000 - 8
    unequal = [row for row in rows if row["chosen"] != row["rejected"]]
    for row, (prompt, chosen, rejected, *_) in zip(unequal, preferences, strict=True):
        assert (prompt, prompt + chosen, prompt + rejected) == (row["prompt"], row["chosen"], row["rejected"])
    recorded = read_recorded(path)
    assert len(recorded) == len({row["prompt"] for row in rows})
    assert sum(item.identical_preferences for item in recorded) == sum(r["chosen"] == r["rejected"] for r in rows) == 8
    assert sum(len(item.preferences) for item in recorded) == 8000 - 8


@pytest.mark.parametrize(
    ("spelled", "number"),
    [("0.5", 0.5), (" 1e3 ", 1000.0), (3, 3.0), (True, 1.0), (False, 0.0), ("True", 1.0), ("FALSE", 0.0)],
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_number_is_a_score_however_it_is_spelled(tmp_path, suffix, spelled, number):
    path = tmp_path / f"responses.{suffix}"
    if suffix == "csv":
        path.write_text(f"prompt,response,rm\nQ,x,{spelled}\n")
    else:
        path.write_text(json.dumps({"prompt": "Q", "response": "x", "rm": spelled}) + "\n")
    [found] = read_recorded(path)
    assert (found.responses[0].scores, found.responses[0].unread) == ({"rm": number}, {})


def test_decimals_of_parquet_are_numbers(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {"prompt": ["Q", "Q"], "response": ["x", "y"], "rm": [decimal.Decimal("0.25"), decimal.Decimal("1.50")]}
    parquet.write_table(pyarrow.table(table), tmp_path / "responses.parquet")
    [found] = read_recorded(tmp_path / "responses.parquet")
    assert [response.scores for response in found.responses] == [{"rm": 0.25}, {"rm": 1.5}]


@pytest.mark.parametrize("value", ["0,5", "1_000", "50 %", "Nan", float("nan"), float("-inf"), 10**400, [1]])
def test_what_is_no_number_is_kept_apart_with_its_place(tmp_path, value):
    rows = [{"prompt": "Q", "response": "x", "rm": value}, {"prompt": "Q", "response": "y", "rm": ""}]
    [found] = read_recorded(written(tmp_path, *rows))
    assert [response.scores for response in found.responses] == [{}, {}]
    assert found.responses[0].unread["rm"].startswith("responses.jsonl line 1: ")
    assert found.responses[1].unread == {}


def test_a_rating_within_an_object_that_is_no_number_is_unread_by_its_name(tmp_path):
    """As in UltraFeedback, which has `N/A` among its ratings, beside reasons that are text; nothing is left unsaid."""
    rated = [{"helpfulness": {"Rating": 4}, "honesty": {"Rating": given, "Rationale": None}} for given in ("5", "N/A")]
    row = {"instruction": "Q", "completions": [{"response": f"{n}", "annotations": one} for n, one in enumerate(rated)]}
    [found] = read_recorded(written(tmp_path, row))
    name = "annotations.honesty.Rating"
    assert [response.scores.get(name) for response in found.responses] == [5, None]
    assert [response.unread for response in found.responses] == [
        {},
        {name: "responses.jsonl line 1, response 2: 'N/A'"},
    ]


@pytest.mark.parametrize(
    "spell",
    [json.dumps, repr, lambda messages: "array([" + ",\n ".join(map(repr, messages)) + "], dtype=object)"],
)
@pytest.mark.parametrize("column", ["prompt", "chosen", "rejected"])
def test_messages_spelled_out_as_text_are_refused_with_their_column(tmp_path, spell, column):
    row = {"prompt": "Q", "chosen": "x", "rejected": "y"}
    for text in (QUESTION, QUESTION + answer("it's")):
        with pytest.raises(InvalidDataError, match=f"line 1, {column}: messages are spelled out as text"):
            read_recorded(written(tmp_path, row | {column: spell(text)}))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "text",
    ["[1or 2]", "{[1]}", "{{}: 1}", "[1, 2]", '{"a": 1}', "[]", "{", '[{"role": "king"}]', "['role', 'content']"],
)
def test_a_text_that_only_looks_like_structure_stays(tmp_path, text):
    [found] = read_recorded(written(tmp_path, {"prompt": text, "chosen": "x", "rejected": text}))
    assert (found.prompt, found.responses[1].text) == (text, text)


@pytest.mark.parametrize("spell", [lambda text: text, answer])
@pytest.mark.parametrize("column", ["prompt", "response_b"])
def test_a_text_that_no_model_reads_is_refused_before_a_tokenizer_fills_the_memory(tmp_path, spell, column):
    row = {"prompt": "Q", "response_a": "x", "response_b": "y"} | {column: spell("x" * (2**23 + 1))}
    with pytest.raises(InvalidDataError, match=f"line 1, ({column}|message 1).*: the text has 8,388,609 characters"):
        read_recorded(written(tmp_path, row))


def test_what_stands_in_system_is_read_before_the_prompt(tmp_path):
    row = {"prompt": "Q", "chosen": "x", "rejected": "y"}
    rows = [row | {"system": system} for system in ("Be brief.", "Be a pirate.", "", " ", None)]
    found = read_recorded(written(tmp_path, *rows))
    before = [[{"role": "system", "content": text}, *QUESTION] for text in ("Be brief.", "Be a pirate.")]
    assert [item.prompt for item in found] == [*before, "Q"]
    with pytest.raises(InvalidDataError, match="another system message"):
        read_recorded(written(tmp_path, row | {"prompt": before[0], "system": "Be long."}))


@pytest.mark.parametrize("column", ["tools", "images", "history", "context"])
def test_a_column_that_the_answer_depends_on_is_not_ignored(tmp_path, column):
    row = {"prompt": "Q", "chosen": "x", "rejected": "y"}
    assert read_recorded(written(tmp_path, row | {column: []}, row | {column: None}))
    with pytest.raises(InvalidDataError, match=f"line 1: the answer depends on `{column}`"):
        read_recorded(written(tmp_path, row | {column: ["something"]}))


@pytest.mark.parametrize("prompt", ["Q", QUESTION])
def test_answers_behind_the_messages_of_their_prompt(tmp_path, prompt):
    """As UltraFeedback's binarized preferences have it, and with the empty fields that Arrow adds to every message."""
    messages = [[message | {"name": None, "tool_calls": []} for message in QUESTION + answer(text)] for text in "xy"]
    row = {"prompt": prompt, "chosen": messages[0], "rejected": messages[1], "messages": messages[0]}
    [found] = read_recorded(written(tmp_path, row))
    assert (found.prompt, [response.text for response in found.responses]) == (prompt, ["x", "y"])
    with pytest.raises(InvalidDataError, match="are not those of `prompt`"):
        read_recorded(written(tmp_path, row | {"prompt": "another"}))


@pytest.mark.parametrize("verdict", ["A", " a ", "Both-bad", "TIE"])
def test_verdicts_are_read_in_any_case(tmp_path, verdict):
    row = {"prompt": "Q", "response_a": "x", "response_b": "y", "preference": verdict}
    expected = {"A": [(0, 1, 0)], " a ": [(0, 1, 0)], "Both-bad": [], "TIE": [(0, 1, None)]}
    assert read_recorded(written(tmp_path, row))[0].preferences == expected[verdict]


def test_a_repeated_prompt_is_cut_where_a_space_lacks_and_refused_where_a_row_differs(tmp_path):
    asked = [f"Question number {n}." for n in range(3)]
    rows = [{"prompt": text, "chosen": f"{text} yes", "rejected": f"{text} no"} for text in asked]
    odd = {"prompt": "Sing. ", "chosen": "Sing.La la.", "rejected": "Sing.Hm."}
    said: list[str] = []
    preferences, _ = read_preferences(written(tmp_path, *rows, odd), said.append)
    assert [row[1:3] for row in preferences] == [(" yes", " no")] * 3 + [("La la.", "Hm.")]
    assert said == ["the prompt was taken off the start of what answers it in 4 rows"]
    with pytest.raises(InvalidDataError, match="line 4 does not repeat its prompt"):
        read_preferences(written(tmp_path, *rows, odd | {"chosen": "La la."}))


@pytest.mark.parametrize("read", [read_preferences, read_recorded, read_recorded_pairs])
def test_a_few_rows_that_repeat_their_prompt_are_said_and_stay(tmp_path, read):
    echo = {"prompt": "Yes", "chosen": "Yes, gladly.", "rejected": "Yes?"}
    said: list[str] = []
    [kept], _ = read_preferences(written(tmp_path, echo))
    assert kept[1:3] == ("Yes, gladly.", "Yes?")
    others = [{"prompt": f"Q{n}", "chosen": "x", "rejected": "y"} for n in range(2)]
    read(written(tmp_path, *others, echo), said.append)
    assert said == ["what answers the prompt begins with its text in 1 of 3 rows (line 3), and stays as it is"]


TWO = {"prompt": "Q", "responses": ["x", "y"]}
PARALLEL = {
    "a list": (TWO | {"rm": [0.5, 2]}, {"rm": [0.5, 2]}),
    "a list with a gap": (TWO | {"rm": [None, 2]}, {"rm": [None, 2]}),
    "lists in an object": (
        TWO | {"scores": {"kind": [1, 2], "safe": ["3", 4]}},
        {"scores.kind": [1, 2], "scores.safe": [3, 4]},
    ),
    "objects in a list": (TWO | {"scores": [{"kind": 1, "by": "me"}, {"kind": True}]}, {"scores.kind": [1, 1]}),
    "UltraFeedback's ratings": (
        {
            "instruction": "Q",
            "completions": [
                {"response": text, "annotations": {"honesty": {"Rating": rating, "Rationale": "It is."}}}
                for text, rating in (("x", "4"), ("y", "N/A"))
            ],
        },
        {"annotations.honesty.Rating": [4, None]},
    ),
    "UltraFeedback's pairs": (
        {"prompt": "Q", "chosen": "x", "rejected": "y", "score_chosen": 8.5, "score_rejected": 8},
        {"score": [8.5, 8]},
    ),
    "Argilla's pairs": (
        {"prompt": "Q", "chosen": "x", "rejected": "y", "chosen-rating": 4, "rejected-rating": None},
        {"rating": [4, None]},
    ),
    "SHP": (
        {
            "history": "Q",
            "human_ref_A": "x",
            "human_ref_B": "y",
            "labels": 1,
            "score_A": 9,
            "score_B": 2,
            "c_root_id_A": "k",
        },
        {"score": [9, 2]},
    ),
    "pairs": (
        {
            "prompt": "Q",
            "response_a": "x",
            "response_b": "y",
            "response_a_rm": 1,
            "response_b_rm": 2,
            "kind_a": 3,
            "kind_b": 4,
        },
        {"rm": [1, 2], "kind": [3, 4]},
    ),
}


@pytest.mark.parametrize(("row", "scores"), PARALLEL.values(), ids=PARALLEL)
def test_scores_that_stand_elsewhere_than_beside_their_text(tmp_path, row, scores):
    [found] = read_recorded(written(tmp_path, row))
    named = {response.text: response.scores for response in found.responses}
    assert {name: [named[text].get(name) for text in "xy"] for name in scores} == scores
    assert {name for own in named.values() for name in own} == set(scores)


@pytest.mark.parametrize(
    ("more", "name", "where"),
    [
        ({"rm": [1, 2, 3]}, "rm", "responses.jsonl line 1: 3 values for 2 responses"),
        ({"scores": {"rm": [1]}}, "scores.rm", "responses.jsonl line 1: 1 value for 2 responses"),
        ({"rm": 0.5}, "rm", "responses.jsonl line 1: 0.5 stands once beside 2 responses"),
        ({"rm": {"0": 1}}, "rm", "responses.jsonl line 1: {'0': 1} stands once beside 2 responses"),
    ],
)
def test_numbers_that_belong_to_no_response_are_named(tmp_path, more, name, where):
    said: list[str] = []
    [found] = read_recorded(written(tmp_path, TWO | more), said.append)
    assert [response.scores for response in found.responses] == [{}, {}]
    assert [response.unread for response in found.responses] == [{name: where}] * 2
    list_said = f"1 row has a list `{name}` that is not as long as the list of responses, and is not read (line 1)"
    assert said == ([] if "stands once" in where else [list_said])


@pytest.mark.parametrize(
    ("spelled", "number"),
    [(" +1.5e1 ", 15), (".5", 0.5), ("2.", 2), ("1_000", None), ("١", None), ("1e999", None), ("0x10", None)],
)
def test_a_number_is_one_of_json_or_a_plain_decimal(tmp_path, spelled, number):
    [found] = read_recorded(written(tmp_path, {"prompt": "Q", "response": "x", "rm": spelled}))
    assert found.responses[0].scores == ({} if number is None else {"rm": number})


def test_two_numbers_for_one_score_are_refused(tmp_path):
    row = {"prompt": "Q", "responses": [{"text": "x", "rm": 1}, "y"], "rm": [2, 3]}
    with pytest.raises(InvalidDataError, match="line 1, response 1: `rm` is 1 and 2 for one response"):
        read_recorded(written(tmp_path, row))
