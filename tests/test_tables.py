"""Files are read completely or refused with the line that is wrong; json, csv and pyarrow are the independent readers."""

import csv
import gzip
import io
import json
import math
import os
import shlex
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import byte_tokenizer

from activedpo_cli.base.conversations import parse_prompt
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.tables import is_table_path, read_table

storable_text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | storable_text
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(storable_text, inner, max_size=3), max_leaves=6
)
json_objects = st.dictionaries(storable_text, json_values, max_size=4)
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


def values(path: Path) -> list[dict]:
    return [row.values for row in read_table(path)]


def refusal(path: Path) -> InvalidDataError:
    with pytest.raises(InvalidDataError) as caught:
        list(read_table(path))
    return caught.value


@same_folder
@given(
    objects=st.lists(json_objects, min_size=1, max_size=4),
    ascii_only=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["", "\ufeff"]),
    final_end=st.booleans(),
    name=st.sampled_from(["t.jsonl", "t.ndjson", "t.jsonl.gz", "T.JSONL"]),
)
def test_json_lines_round_trip(tmp_path, objects, ascii_only, end, mark, final_end, name):
    lines = [json.dumps(item, ensure_ascii=ascii_only) for item in objects]
    path = written(tmp_path, name, mark + end.join(lines) + (end if final_end else ""))
    rows = list(read_table(path))
    assert [row.values for row in rows] == objects
    assert [row.line for row in rows] == list(range(1, len(objects) + 1))


@same_folder
@given(
    objects=st.lists(json_objects, min_size=1, max_size=4),
    wrapped=st.booleans(),
    indent=st.sampled_from([None, 2]),
    name=st.sampled_from(["t.json", "t.json.gz"]),
)
def test_json_round_trip(tmp_path, objects, wrapped, indent, name):
    content = json.dumps({"data": objects} if wrapped else objects, indent=indent)
    assert values(written(tmp_path, name, content)) == objects


csv_field = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\t"))


@same_folder
@given(
    rows=st.lists(st.tuples(csv_field, csv_field), min_size=1, max_size=4),
    name=st.sampled_from(["t.csv", "t.tsv", "t.csv.gz"]),
)
def test_csv_round_trip(tmp_path, rows, name):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t" if ".tsv" in name else ",")
    writer.writerow(["prompt", "note, with comma"])
    writer.writerows(rows)
    path = written(tmp_path, name, text.getvalue())
    if not any((a + b).strip() for a, b in rows):
        assert "holds no rows" in refusal(path).message
        return
    found = values(path)
    assert found == [{"prompt": a, "note, with comma": b} for a, b in rows if (a + b).strip()]


def test_parquet_round_trip(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [
        {"prompt": "a\u2028b", "score": 1.5, "messages": [{"role": "user", "content": "x"}]},
        {"prompt": "", "score": None, "messages": []},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert values(tmp_path / "t.parquet") == rows
    assert [row.origin for row in read_table(tmp_path / "t.parquet")] == ["t.parquet row 1", "t.parquet row 2"]


def test_damaged_parquet_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    assert "no valid parquet file" in refusal(written(tmp_path, "t.parquet", b"PAR1 nonsense PAR1")).message


def test_text_lines_are_prompts_and_blank_lines_count(tmp_path):
    path = written(tmp_path, "t.txt", "\ufeffone\r\n\n  two  \u2028\n \t\nthree")
    assert [(row.line, row.values) for row in read_table(path)] == [
        (1, {"prompt": "one"}),
        (3, {"prompt": "  two  \u2028"}),
        (5, {"prompt": "three"}),
    ]


def test_line_separators_inside_strings_do_not_split(tmp_path):
    content = '{"prompt": "a\u2028b\u2029c\x85d\x0be"}\n'.replace("\x0b", "\\u000b")
    assert values(written(tmp_path, "t.jsonl", content)) == [{"prompt": "a\u2028b\u2029c\x85d\x0be"}]


def test_lone_surrogates_become_storable_and_pairs_stay(tmp_path):
    content = '{"a": "x\\ud800y", "b": ["\\ud83d\\ude00"], "\\udfff": {"c": "\\udc00"}}\n'
    found = values(written(tmp_path, "t.jsonl", content))
    assert found == [{"a": "x\ufffdy", "b": ["\U0001f600"], "\ufffd": {"c": "\ufffd"}}]
    json.dumps(found, ensure_ascii=False).encode()


def test_nan_is_a_value_here(tmp_path):
    [row] = values(written(tmp_path, "t.jsonl", '{"score": NaN}\n'))
    assert math.isnan(row["score"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", '{"a": 1}\n\n{"a": }\n', "t.jsonl line 3, column 7 is not JSON: Expecting value"),
        ("t.jsonl", '{"a": 1} {"a": 2}\n', "t.jsonl line 1, column 10 is not JSON: Extra data"),
        ("t.jsonl", '{"a": 1}\n[1, 2]\n', "t.jsonl line 2 is no object with named fields: [1, 2]"),
        ("t.jsonl", '{"a": 1}\n{"a": "é'.encode() + b'\xe9\xe9"}\n', "line 2 is not UTF-8: byte 0xe9 at offset 18"),
        ("t.jsonl.gz", b'\xef\xbb\xbf{"a\xff": 1}\n', "line 1 is not UTF-8: byte 0xff at offset 6"),
        ("t.jsonl", "[" * 100_000 + "\n", "t.jsonl line 1 is JSON that cannot be read: maximum recursion"),
        ("t.jsonl", '{"a": ' + "9" * 5000 + "}\n", "t.jsonl line 1 is JSON that cannot be read: Exceeds the limit"),
        ("t.jsonl", "", "t.jsonl holds no rows"),
        ("t.jsonl", "\n \n", "t.jsonl holds no rows"),
        ("t.json", "[]", "t.json holds no rows"),
        ("t.json", '{"rows": []}', "t.json must hold a list of objects"),
        ("t.json", '[{"a": 1},\n {"a": 2]', "t.json line 2, column 9 is not JSON"),
        ("t.json", '[{"a": 1}, "b"]', "t.json item 2 is no object"),
        ("t.csv", "a,b\n", "t.csv holds no rows"),
        ("t.csv", "a,a\n1,2\n", "t.csv line 1: the header names 'a' twice"),
        ("t.csv", 'a,b\n"1\n1",2\n3\n', "t.csv line 4 has 1 cell, and the header names 2 columns"),
        ("t.csv", 'a,b\n1,"2\n', "t.csv line 2 is no valid row"),
        ("t.txt", "\n\n", "t.txt holds no rows"),
        ("t.docx", "x", "has no suffix that says how to read it"),
    ],
)
def test_refusals_name_the_place(tmp_path, name, content, message):
    assert message in refusal(written(tmp_path, name, content)).message


def test_malformed_json_is_shown_escaped(tmp_path):
    error = refusal(written(tmp_path, "t.jsonl", '{"a": \x1b[31mred}\n'))
    assert error.details == ("near '{\"a\": \\x1b[31mred}'",)


def test_a_damaged_or_cut_gzip_file_is_refused(tmp_path):
    whole = gzip.compress(b'{"a": 1}\n' * 500)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-9])
    (tmp_path / "plain.jsonl.gz").write_bytes(b'{"a": 1}\n')
    for name in ("cut.jsonl.gz", "plain.jsonl.gz"):
        assert "is not a whole gzip file" in refusal(tmp_path / name).message


def test_missing_files_and_folders_are_refused_at_once(tmp_path):
    written(tmp_path, "prompts.jsonl", "{}")
    with pytest.raises(InvalidDataError, match=r"did you mean `.*/prompts\.jsonl`"):
        read_table(tmp_path / "promts.jsonl")
    with pytest.raises(InvalidDataError) as caught:
        read_table(tmp_path / "nowhere" / "a.jsonl")
    assert "there is no folder" in caught.value.details[0]
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(InvalidDataError, match="is a pipe, and no regular file"):
        read_table(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InvalidDataError, match="is a folder"):
        read_table(tmp_path / "folder.jsonl")


@same_folder
@given(content=st.binary(max_size=80), name=st.sampled_from(["t.jsonl", "t.json", "t.csv", "t.txt", "t.parquet"]))
def test_no_bytes_cause_another_error(tmp_path, content, name):
    try:
        found = list(read_table(written(tmp_path, name, content)))
    except InvalidDataError:
        return
    assert found


def test_a_long_field_is_read(tmp_path):
    [row] = values(written(tmp_path, "t.csv", "prompt\n" + "x" * 200_000 + "\n"))
    assert len(row["prompt"]) == 200_000


@pytest.mark.parametrize(
    ("name", "known"), [("a.jsonl", True), ("a.TXT.gz", True), ("a.parquet.gz", False), ("a", False), ("a.gz", False)]
)
def test_known_suffixes(name, known):
    assert is_table_path(name) is known


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        "",
        " \n",
        [],
        ["x"],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": "x", "name": "y"}],
        [{"role": "", "content": "x"}],
        [{"role": "user", "content": " "}],
    ],
)
def test_unusable_prompts_are_refused(value):
    with pytest.raises(InvalidDataError, match=r"^here: "):
        parse_prompt(value, "here")


def test_usable_prompts_are_kept_as_they_are():
    messages = [{"content": "be brief", "role": "system"}, {"role": "user", "content": " x "}]
    assert parse_prompt(messages, "here") == messages
    assert parse_prompt(" x\n", "here") == " x\n"


@pytest.mark.parametrize("name", ["t.json", "t.jsonl", "t.json.gz", "t.ndjson"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("joint", ["list", "\n", " \r\n\n"])
def test_json_goes_by_its_content_not_by_its_suffix(tmp_path, name, indent, joint):
    """A list in a `.jsonl`, lines in a `.json`, as `datasets` writes them, and objects over several lines."""
    objects = [{"prompt": "a\nb", "chosen": "{"}, {"prompt": "[", "chosen": ["x"]}, {"prompt": "c", "age": None}]
    texts = [json.dumps(item, indent=indent) for item in objects]
    path = written(tmp_path, name, json.dumps(objects, indent=indent) if joint == "list" else joint.join(texts))
    assert values(path) == objects
    if joint != "list":
        lines = "".join(text + joint for text in texts).split("\n")
        assert all(lines[row.line - 1].startswith("{") for row in read_table(path))


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_a_single_object_is_a_row(tmp_path, name):
    row = {"prompt": "a", "chosen": "b"}
    assert values(written(tmp_path, name, json.dumps(row))) == [row]
    assert values(written(tmp_path, name, json.dumps({"messages": [row]}, indent=2))) == [{"messages": [row]}]


def test_columns_in_json_are_refused_with_a_command_that_makes_rows(tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = [{"prompt": "a", "chosen": "007"}, {"prompt": "b", "chosen": "2020-01-01"}]
    path = tmp_path / "columns of mine.json"
    pandas.DataFrame(rows).to_json(path)
    assert converted(refusal(path), tmp_path) == rows
    path.write_text(json.dumps({name: [row[name] for row in rows] for name in rows[0]}))
    assert converted(refusal(path), tmp_path) == rows


def converted(error: InvalidDataError, folder: Path) -> list[dict]:
    """The rows of the file that the suggested command makes, as a shell reads it; the libraries are loaded here."""
    told = shlex.join([sys.executable, "-S", "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"])
    command = error.hint.replace("python", told, 1)
    said = subprocess.run(command, shell=True, check=True, cwd=folder, capture_output=True).stdout
    option, program = json.loads(said)
    assert option == "-c"
    with chdir(folder):
        exec(program, {"__name__": "__main__"})
    return values(folder / "converted.jsonl")


def test_a_data_set_saved_to_a_folder_is_refused_with_a_command_that_makes_a_file(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": "a", "chosen": "x"}, {"prompt": "b", "chosen": "y"}]
    dataset = datasets.Dataset.from_list(rows)
    dataset.save_to_disk(tmp_path / "saved")
    assert converted(refusal(tmp_path / "saved"), tmp_path) == rows
    datasets.DatasetDict(train=dataset).save_to_disk(tmp_path / "several")
    assert converted(refusal(tmp_path / "several"), tmp_path) == rows
    [arrow] = (tmp_path / "saved").glob("*.arrow")
    assert converted(refusal(arrow), tmp_path) == rows


@pytest.mark.parametrize(
    ("name", "hint"),
    [("t.xlsx", "CSV UTF-8"), ("t.ods", "CSV UTF-8"), ("t.jsonl.zst", "unpack it first"), ("t.parquet.gz", None)],
)
def test_files_that_are_no_tables_name_the_way_out(tmp_path, name, hint):
    error = refusal(written(tmp_path, name, b"PK\x03\x04"))
    assert "has no suffix that says how to read it" in error.message
    assert error.hint is None if hint is None else hint in error.hint


def test_text_of_old_spreadsheets_ends_its_lines_by_returns(tmp_path):
    assert values(written(tmp_path, "t.txt", "a\rb\r\rc")) == [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}]
    assert values(written(tmp_path, "t.txt", "a\rb\nc")) == [{"prompt": "a\rb"}, {"prompt": "c"}]


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("prompt\tchosen\trejected\nQ\tx\ty\n".encode("utf-16"), "name the file `.tsv`"),
        ('\n"Prompt", "Response"\nQ,x\n', "name the file `.csv`"),
        ('{"prompt": "Q", "chosen": "x"}\n', "name the file `.jsonl`"),
    ],
)
def test_a_table_with_the_suffix_of_a_text_is_no_list_of_texts(tmp_path, content, hint):
    """As spreadsheets save `Unicode text`: tabs, UTF-16 and the suffix `.txt`."""
    assert refusal(written(tmp_path, "t.txt", content)).hint == hint


@pytest.mark.parametrize("text", ["prompt", "Say the prompt, please", '{"a": 1}', "text, text of mine", "{", "[1]"])
def test_texts_that_only_look_like_a_table_stay(tmp_path, text):
    assert values(written(tmp_path, "t.txt", text)) == [{"prompt": text}]


PARTS = [{"type": "text", "text": "One, "}, {"type": "text", "text": "two.", "image": None}]


def test_a_content_in_parts_is_the_text_that_a_template_makes_of_it() -> None:
    """A template that takes parts writes them one behind the other; the value of the row itself stays as it is."""
    template = "{% for part in messages[0]['content'] %}{{ part['text'] }}{% endfor %}"
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    messages = [{"role": "user", "content": PARTS}]
    [read] = parse_prompt(messages, "here")
    assert read == {"role": "user", "content": tokenizer.apply_chat_template(messages, tokenize=False)}
    assert messages == [{"role": "user", "content": PARTS}]


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"type": "image"}, "message 1: part 2 of `content` is 'image', and the model reads text alone"),
        ({"type": "image_url", "image_url": {"url": "a.png"}}, "part 2 of `content` is 'image_url'"),
        ({"type": "text", "text": "a", "image": "b.png"}, "part 2 of `content` holds `image`"),
        ({"type": "text", "text": None}, "part 2 of `content` is 'text'"),
        ("two", "part 2 of `content` is an object with `type` and `text`, not 'two'"),
    ],
)
def test_a_part_that_is_no_text_is_refused_by_name(part: Any, says: str) -> None:
    with pytest.raises(InvalidDataError) as caught:
        parse_prompt([{"role": "user", "content": [*PARTS[:1], part]}], "here")
    assert says in caught.value.message


KEYED_ROWS = [{"prompt": "Q", "response": "x"}, {"prompt": "R", "response": "it's y"}]


@pytest.mark.parametrize(
    "shape",
    [
        lambda rows: {"7": rows[0], "9": rows[1]},
        lambda rows: {"data": {"7": rows[0], "9": rows[1]}},
        lambda rows: {"rows": rows},
        lambda rows: {"a b": {"train": rows}},
    ],
)
def test_rows_by_key_become_a_file_by_the_command_that_is_named(tmp_path, shape):
    path = tmp_path / "it's keyed.json"
    path.write_text(json.dumps(shape(KEYED_ROWS)))
    with pytest.raises(InvalidDataError, match="must hold a list of objects") as caught:
        list(read_table(path))
    command = caught.value.hint.replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert [row.values for row in read_table(tmp_path / "converted.jsonl")] == KEYED_ROWS


def test_lines_of_json_may_end_at_returns(tmp_path):
    path = tmp_path / "mac.jsonl"
    path.write_bytes("\r".join(json.dumps(row) for row in KEYED_ROWS).encode())
    assert [(row.line, row.values) for row in read_table(path)] == [(1, KEYED_ROWS[0]), (2, KEYED_ROWS[1])]
