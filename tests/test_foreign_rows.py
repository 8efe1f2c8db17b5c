"""Shapes in which preferences are published: what each of them says, by its documentation, is what is read."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.generate.backends._recorded import read_preferences, read_recorded, read_recorded_pairs
from activedpo_cli.prompts._files import read_file
from activedpo_cli.train.sft_data import read_sft_rows

USER = [{"role": "user", "content": "Q"}]
CHAT = [{"from": "system", "value": "S"}, {"from": "human", "value": "Q"}]
ROLES = [{"role": "system", "content": "S"}, *USER]
SAID = [{"role": "assistant", "content": "A"}]
TRANSCRIPT = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Q\n\nAssistant:"


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def written(folder: Path, *rows: dict[str, Any], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


PAIRS = {
    "HH": ({"chosen": TRANSCRIPT + " good", "rejected": TRANSCRIPT + " glum"}, TRANSCRIPT, " good", " glum"),
    "SHP": (
        {"history": "Q", "human_ref_A": "good", "human_ref_B": "bad", "labels": 1, "score_A": 9},
        "Q",
        "good",
        "bad",
    ),
    "SHP, B": ({"history": "Q", "human_ref_A": "bad", "human_ref_B": "good", "labels": 0}, "Q", "good", "bad"),
    "HelpSteer3": (
        {"context": USER, "response1": "good", "response2": "bad", "overall_preference": -2, "domain": "general"},
        *(USER, "good", "bad"),
    ),
    "HelpSteer2's preferences": (
        {"prompt": "Q", "response_1": "bad", "response_2": "good", "preference_strength": 3, "split": "train"},
        *("Q", "good", "bad"),
    ),
    "Argilla": (
        {"prompt": "Q", "chosen": USER + answer("good"), "chosen-rating": 5.0, "rejected": USER + answer("bad")},
        *("Q", "good", "bad"),
    ),
    "Argilla, mixed": (
        {"chosen": USER + answer("good"), "rejected": USER + answer("bad"), "chosen_rating": 5.0},
        *(USER, "good", "bad"),
    ),
    "Argilla, older": (
        {"instruction": "Q", "chosen_response": "good", "rejected_response": "bad", "chosen_avg_rating": 4.5},
        *("Q", "good", "bad"),
    ),
    "ShareGPT": (
        {
            "conversations": CHAT,
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        *(ROLES, "good", "bad"),
    ),
    "ShareGPT in the columns of TRL": (
        {"prompt": CHAT, "chosen": [{"from": "gpt", "value": "good"}], "rejected": "bad"},
        *(ROLES, "good", "bad"),
    ),
    "WebGPT": (
        {
            "question": {"dataset": "eli5", "full_text": "Q"},
            **{"answer_0": "bad", "answer_1": "good", "score_0": -0.5, "score_1": 0.5, "tokens_0": {}},
        },
        *("Q", "good", "bad"),
    ),
    "OpenAI": (
        {
            "input": {"messages": ROLES, "tools": [], "parallel_tool_calls": True},
            "preferred_output": answer("good"),
            "non_preferred_output": answer("bad"),
        },
        *(ROLES, "good", "bad"),
    ),
    "Orca": ({"system": "S", "question": "Q", "chosen": "good", "rejected": "bad"}, ROLES, "good", "bad"),
    "Orca, distilled": (
        {"system": "", "input": "Q", "chosen": "good", "rejected": "bad", "generations": ["x"]},
        *("Q", "good", "bad"),
    ),
}


@pytest.mark.parametrize(("row", "prompt", "chosen", "rejected"), PAIRS.values(), ids=PAIRS)
def test_preferences_as_they_are_published(tmp_path, row, prompt, chosen, rejected):
    path = written(tmp_path, row)
    [preference], _ = read_preferences(path)
    assert preference[:3] == (prompt, chosen, rejected)
    [found] = read_recorded(path)
    [(_, _, preferred)] = found.preferences
    assert (found.prompt, found.responses[preferred].text) == (prompt, chosen)
    [pool] = read_recorded_pairs(path).prompts
    assert (pool.prompt, {response.text for response in pool.responses}) == (prompt, {chosen, rejected})
    assert [item.prompt for item in read_file(path, "prompt")] == [prompt]
    if any(name.startswith("chosen") for name in row):
        [example] = read_sft_rows(path)
        assert (example.prompt, example.text) == (prompt, chosen)


@pytest.mark.parametrize(
    "spelled", [str.upper, str.title, lambda name: name.replace("_", " "), lambda name: f"\ufeff{name} "]
)
@pytest.mark.parametrize(("row", "prompt", "chosen", "rejected"), PAIRS.values(), ids=PAIRS)
def test_their_columns_may_be_spelled_otherwise(tmp_path, row, prompt, chosen, rejected, spelled):
    [preference], _ = read_preferences(written(tmp_path, {spelled(name): value for name, value in row.items()}))
    assert preference[:3] == (prompt, chosen, rejected)


RESPONSES = {
    "messages": ({"prompt": "Q", "responses": [*answer("x"), {"text": "y", "rm": 2}], "rm": 1}, "rm", [None, 2]),
    "Nectar": (
        {
            "prompt": "Q",
            "answers": [{"answer": "x", "rank": 2.0, "model": "m"}, {"answer": "y", "rank": 1.0}],
            "turns": 1,
        },
        "minus_rank",
        [-2.0, -1.0],
    ),
    "UltraFeedback": (
        {
            "instruction": "Q",
            "completions": [
                {"response": "x", "overall_score": 3.5, "annotations": {"honesty": {"Rating": "1"}}},
                {"response": "y", "overall_score": 8.0, "custom_system_prompt": "Be kind."},
            ],
            "models": ["m", "n"],
        },
        "overall_score",
        [3.5, 8.0],
    ),
}


@pytest.mark.parametrize(("row", "score", "values"), RESPONSES.values(), ids=RESPONSES)
def test_scored_responses_as_they_are_published(tmp_path, row, score, values):
    [found] = read_recorded(written(tmp_path, row))
    [spelled] = read_recorded(written(tmp_path, {name.title(): value for name, value in row.items()}))
    assert [(item.text, item.scores) for item in spelled.responses] == [(r.text, r.scores) for r in found.responses]
    assert found.prompt == "Q"
    assert [(response.text, response.scores.get(score)) for response in found.responses] == list(
        zip("xy", values, strict=True)
    )


HELPSTEER = [
    {"prompt": "Q", "response": text, "helpfulness": score, "verbosity": 2}
    for text, score in (("x", 1), ("y", 4), ("z", 4))
]


def converted(error: InvalidDataError, folder: Path) -> Path:
    """The file that the suggested command makes, typed as it stands."""
    command = error.hint.replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True, cwd=folder)
    return folder / "converted.jsonl"


def test_scored_responses_become_pairs_preferences_and_examples_by_the_commands_that_are_named(tmp_path):
    folder = tmp_path / "it's my data"
    folder.mkdir()
    path = written(folder, *HELPSTEER, {"prompt": "R", "response": "alone", "helpfulness": 0}, name="help steer.jsonl")
    with pytest.raises(InvalidDataError, match="line 1 holds no pair of responses") as caught:
        read_recorded_pairs(path)
    [pool] = read_recorded_pairs(converted(caught.value, tmp_path)).prompts
    assert len(pool.pairs) == 3
    with pytest.raises(InvalidDataError, match="holds no preferences") as caught:
        read_preferences(path)
    preferences, _ = read_preferences(converted(caught.value, tmp_path))
    assert [row[:3] for row in preferences] == [("Q", "y", "x"), ("Q", "z", "x")]
    with pytest.raises(InvalidDataError, match="neither `completion` nor `chosen`") as caught:
        read_sft_rows(path)
    assert [(row.prompt, row.text) for row in read_sft_rows(converted(caught.value, tmp_path))] == [
        ("Q", "z"),
        ("R", "alone"),
    ]


@pytest.mark.parametrize(
    ("read", "fields"),
    [
        (read_recorded_pairs, {"responses": ["x", "y"]}),  # every two as a pair
        (read_preferences, {"responses": [{"text": "x", "s": 1}, {"text": "y", "s": 2}]}),
        (read_sft_rows, {"responses": [{"text": "x", "s": 1}]}),
        (read_sft_rows, {"response_a": "x", "response_b": "y", "preference": "a"}),
    ],
)
def test_the_commands_read_rows_with_the_template_arguments_of_a_run(tmp_path, read, fields):
    path = written(tmp_path, {"prompt": "Q", "chat_template_kwargs": {"enable_thinking": False}} | fields)
    with pytest.raises(InvalidDataError) as caught:
        read(path, template_kwargs=["enable_thinking=false"])
    assert "converted.jsonl" in caught.value.hint
    assert read(converted(caught.value, tmp_path), template_kwargs=["enable_thinking=false"])


def test_several_rejected_become_a_row_each_by_the_command_that_is_named(tmp_path):
    path = written(
        tmp_path,
        {"prompt": "Q", "chosen": "x", "rejected": ["y", "z"]},
        {"prompt": "R", "chosen": "a", "rejected": ["b"]},
        {"prompt": "S", "chosen": "a", "rejected": "bc"},
    )
    for read in (read_recorded, read_recorded_pairs, read_preferences):
        with pytest.raises(InvalidDataError, match="line 1: `rejected` holds 2 texts, and a row has one") as caught:
            read(path)
    preferences, _ = read_preferences(converted(caught.value, tmp_path))
    assert [row[:3] for row in preferences] == [("Q", "x", "y"), ("Q", "x", "z"), ("R", "a", "b"), ("S", "a", "bc")]
    assert [row.text for row in read_sft_rows(path)] == ["x", "a", "a"]


@pytest.mark.parametrize("name", ["chosen", "rejected", "response_a"])
def test_a_list_of_one_text_is_its_text(tmp_path, name):
    row = {"prompt": "Q", "chosen": "x", "rejected": "y"} if name != "response_a" else {}
    row = row or {"prompt": "Q", "response_a": "x", "response_b": "y", "preference": "a"}
    preferences, _ = read_preferences(written(tmp_path, row | {name: [row[name]]}))
    assert [row[:3] for row in preferences] == [("Q", "x", "y")]
    if name != "rejected":
        with pytest.raises(InvalidDataError, match=f"line 1: `{name}` holds 2 texts, and a row has one"):
            read_preferences(written(tmp_path, row | {name: ["x", "z"]}))


def test_an_instruction_with_an_input_becomes_a_prompt_by_the_command_that_is_named(tmp_path):
    rows = [
        {"instruction": "Add.", "input": "", "output": "What?"},
        {"instruction": "Add.", "input": "1 2", "output": "3"},
    ]
    path = written(tmp_path, *rows)
    for read in (read_sft_rows, read_recorded, lambda path: list(read_file(path, "prompt"))):
        with pytest.raises(InvalidDataError, match="line 2: `instruction` and `input` are both filled") as caught:
            read(path)
    found = read_sft_rows(converted(caught.value, tmp_path))
    assert [(row.prompt, row.text) for row in found] == [("Add.", "What?"), ("Add.\n\n1 2", "3")]


def test_an_export_becomes_examples_by_the_command_that_is_named(tmp_path):
    pair = {"prompt": "Q", "response_a": "x", "response_b": "y"}
    path = written(tmp_path, pair | {"preference": "b"}, pair | {"preference": "tie"})
    with pytest.raises(InvalidDataError, match="neither `completion` nor `chosen`") as caught:
        read_sft_rows(path)
    assert [row.text for row in read_sft_rows(converted(caught.value, tmp_path))] == ["y"]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"conversations": [*CHAT, {"from": "gpt", "value": "A"}]}, ROLES),
        ({"instruction": "Q", "input": "", "output": "A"}, "Q"),
        ({"question": "Q", "answer": "A"}, "Q"),
        ({"prompt": "Q", "response": "A"}, "Q"),
        ({"chosen": TRANSCRIPT + "A"}, TRANSCRIPT),
    ],
)
def test_examples_as_they_are_published(tmp_path, row, prompt):
    [example] = read_sft_rows(written(tmp_path, row))
    assert (example.prompt, example.text) == (prompt, "A")


def test_an_example_as_a_whole_goes_before_its_parts(tmp_path):
    """As in Alpaca, whose `text` is instruction, input and answer in one; with and without an input it is learnt alike."""
    rows = [{"instruction": "Q", "input": extra, "output": "A", "text": f"Q {extra} A"} for extra in ("", "more")]
    rows += [{"instruction": "Q", name: "A", "messages": USER + answer("B")} for name in ("output", "response")]
    found = [(row.prompt, row.text) for row in read_sft_rows(written(tmp_path, *rows))]
    assert found == [(None, "Q  A"), (None, "Q more A"), (USER, "B"), (USER, "B")]


@pytest.mark.parametrize(
    ("row", "message", "hint"),
    [
        (
            {"instruction": "Q", "input": "more", "output": "A"},
            "`instruction` and `input` are both filled, and the prompt is made of both",
            "converted.jsonl",
        ),
        ({"prompt": "Q", "answers": ["x"]}, "`answers` is a list of objects with `answer` and `rank`", None),
        ({"prompt": "Q", "answers": [{"answer": "x", "rank": "first"}]}, "answer 1, rank: 'first' is no number", None),
        ({"history": "Q", "human_ref_A": "x", "human_ref_B": "y", "labels": 2}, "`labels` is 1 for A or 0 for B", None),
        ({"context": "Q", "response1": "x", "response2": "y", "overall_preference": None}, "None is no number", None),
        *(
            (
                {"prompt": "Q", "response_1": "x", "response_2": "y", "preference_strength": spelled},
                f"preference_strength: {spelled!r} is no number{mend}",
                None,
            )
            for spelled, mend in (
                ("-1_0", ""),
                ("1,5", "; write 1.5, with a point"),
                ("١", ""),
                ("infinity", ""),
                ("0x1", ""),
            )
        ),
        ({"prompt": [{"from": "tool", "value": "Q"}], "response": "x"}, "message 1 is from 'tool'", "calls of tools"),
        ({"prompt": "Q", "response_0": "x", "response_1": "y", "better_response_id": 0}, "has no responses", "safer"),
        ({"info": {"post": "Q"}, "summaries": [{"text": "x"}], "choice": 0}, "has no `prompt`", "b for 1"),
        (
            {"input": {"messages": USER, "tools": [{}]}, "preferred_output": SAID, "non_preferred_output": SAID},
            *("the answer depends on `tools`", "put it into the prompt"),
        ),
        ({"chosen": "Q good", "rejected": "Q bad"}, "has no `prompt`", "extract_prompt"),
    ],
)
def test_what_is_in_doubt_is_refused(tmp_path, row, message, hint):
    with pytest.raises(InvalidDataError) as caught:
        read_recorded(written(tmp_path, row))
    assert caught.value.message.startswith("rows.jsonl line 1")
    assert message in caught.value.message
    assert hint is None or hint in caught.value.hint


def test_responses_to_different_texts_are_left_out_and_named(tmp_path):
    other = "\n\nHuman: Hi\n\nAssistant: Oh\n\nHuman: R\n\nAssistant:"
    rows = [
        {"chosen": TRANSCRIPT + " good", "rejected": TRANSCRIPT + " bad"},
        {"chosen": TRANSCRIPT + " good", "rejected": other + " bad"},
        {"chosen": USER + answer("x"), "rejected": ROLES + answer("y")},
    ]
    path = written(tmp_path, *rows)
    preferences, left_out = read_preferences(path)
    assert [row.line for row in preferences] == [1]
    assert left_out.in_words() == "left out 2 whose responses answer different prompts (lines 2, 3)"
    assert read_recorded_pairs(path).left_out.lines["different_prompts"] == [2, 3]
    assert len(list(read_file(path, "prompt", skip_empty=True))) == 1
    with pytest.raises(InvalidDataError, match="line 2: `chosen` and `rejected` differ before their last answer"):
        read_recorded(path)


def test_shapes_in_a_table_of_texts(tmp_path):
    path = tmp_path / "shp.csv"
    path.write_text("history,human_ref_A,human_ref_B,labels\nQ,bad,good,0\n")
    [preference], _ = read_preferences(path)
    assert preference[:3] == ("Q", "good", "bad")
