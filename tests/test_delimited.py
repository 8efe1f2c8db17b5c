"""CSV and TSV as spreadsheets, pandas and this program save them; what is read is what the writer was given."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from activedpo_cli.base.delimited import GUARDED
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.tables import read_table
from activedpo_cli.generate.backends._recorded import read_recorded, read_recorded_pairs
from activedpo_cli.label.formats.csv import render_csv

ROWS = [
    {"prompt": "Name a bird, please; quickly.", "chosen": 'A "robin".', "rejected": "No;\tnever."},
    {"prompt": "Count.", "chosen": "one\ntwo\r\nthree", "rejected": " 1, 2 | 3 "},
]


def saved(folder: Path, delimiter: str = ",", end: str = "\r\n", encoding: str = "utf-8", first: str = "") -> Path:
    """The rows as another program saves them."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(ROWS[0]), delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(ROWS)
    path = folder / "table.csv"
    path.write_bytes((first + stream.getvalue()).encode(encoding))
    return path


def read(folder: Path, content: str | bytes, name: str = "table.csv") -> list[dict[str, str]]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [row.values for row in read_table(path, ("prompt", "response_a", "chosen"))]


def refusal(folder: Path, content: str | bytes, name: str = "table.csv") -> InvalidDataError:
    with pytest.raises(InvalidDataError) as caught:
        read(folder, content, name)
    return caught.value


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_ends_and_encodings(tmp_path, delimiter, end, encoding):
    path = saved(tmp_path, delimiter, end, encoding)
    assert [row.values for row in read_table(path)] == ROWS
    assert [row.line for row in read_table(path)] == [2, 3]


@pytest.mark.parametrize("first", ["sep=;\r\n", '"sep=;"\r\n', "SEP=;\n", '"sep=;",,\r\n'])
def test_a_first_line_names_the_separator(tmp_path, first):
    path = saved(tmp_path, ";", encoding="utf-8-sig", first=first)
    assert [row.values for row in read_table(path)] == ROWS
    assert [row.line for row in read_table(path)] == [3, 4]
    odd = read(tmp_path, "sep=^\nprompt^note, with; all\nx^1\n")
    assert odd == [{"prompt": "x", "note, with; all": "1"}]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("prompt,chosen,,\na,b,,\n,,,\n\n , ,,\nc,d,,\n", [("a", "b"), ("c", "d")]),
        ("prompt,chosen\na,b,,\nc,d\n", [("a", "b"), ("c", "d")]),
        (",prompt,chosen\n0,a,b\n1,c,d\n", [("a", "b"), ("c", "d")]),
        (" Prompt ,\ufeffCHOSEN\na,b\nc,d\n", [("a", "b"), ("c", "d")]),
    ],
    ids=["empty rows and columns", "cells beyond", "index of pandas", "header"],
)
def test_what_spreadsheets_leave_around_a_table(tmp_path, content, expected):
    assert [(row["prompt"], row["chosen"]) for row in read(tmp_path, content)] == expected
    assert all(row.keys() == {"prompt", "chosen"} for row in read(tmp_path, content))


def test_names_are_only_taken_for_another_where_that_leaves_no_doubt(tmp_path):
    assert read(tmp_path, "Prompt,Response A,score\na,c,1\n") == [{"prompt": "a", "response_a": "c", "score": "1"}]
    assert read(tmp_path, "prompt,Prompt,PROMPT\na,,a\n") == [{"prompt": "a"}]
    assert read(tmp_path, "prompt,Prompt\n,b\n") == [{"prompt": "b"}]
    assert read(tmp_path, '{"Prompt": "a", "response-a": "b"}\n', "t.jsonl") == [{"prompt": "a", "response_a": "b"}]
    assert read(tmp_path, "PROMPT\xa0,ResponseA,_chosen\na,b,c\n") == [
        {"prompt": "a", "response_a": "b", "_chosen": "c"}
    ]


@pytest.mark.parametrize(
    ("header", "named"),
    [("Prompt,PROMPT", "'Prompt' and 'PROMPT'"), ("Prompt,\u200bprompt\xa0", "'prompt' and 'Prompt'")],
)
def test_two_columns_of_one_meaning_that_differ_are_refused_by_name(tmp_path, header, named):
    error = refusal(tmp_path, f"{header}\na,a\na,b\n")
    assert error.message == f"table.csv line 3: {named} are one column to every reader, and differ"
    assert "read as `prompt`" in error.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n\n1,2,3\n", "table.csv line 4 has 3 cells, and the header names 2 columns"),
        ('a,b\n"1\n2",3\n4\n', "table.csv line 4 has 1 cell, and the header names 2 columns"),
        ("a,b,\n1,2,3\n", "table.csv line 2 has 3 cells, and the header names 2 columns"),
        ("a,,b\n1,2,3\n", "table.csv line 2 has text in column 2, which the header gives no name"),
        (",b\nx,2\n", "table.csv line 2 has text in column 1, which the header gives no name"),
        ("a, a \n1,2\n", "table.csv line 1: the header names 'a' twice"),
        ('a,b\n1,"2\n3,4\n', "table.csv line 2 is no valid row"),
        ("a,b\n1\r2,3\n", "table.csv line 2 is no valid row"),
        (b"a,b\n1,\xe9\n", "table.csv line 2 is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "table.csv line 1 is not UTF-8, it looks like UTF-16LE"),
        ("a,b\n1,2\n".encode("utf-16-be"), "table.csv line 1 is not UTF-8, it looks like UTF-16BE"),
        ("a,b\n1,2\n".encode("utf-32"), "table.csv line 1 is not UTF-8, it looks like UTF-32"),
        ("a,b\n1,2\n".encode("utf-16")[:-1], "table.csv is no valid UTF-16"),
        (b"PK\x03\x04...", "table.csv is a spreadsheet or another zip file, not text"),
        (b"\x1f\x8b...", "table.csv is packed with gzip, not text"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, message):
    assert message in refusal(tmp_path, content).message


QUOTES = 'prompt\tchosen\trejected\nSay.\t"Well, well\tok\nDo.\ta\tb\n'


@pytest.mark.parametrize("rest", ['Two.\tone two\t"three"\n', 'Two.\tone two"\tc\n', "Two.\tone\ttwo\n"])
def test_quotation_marks_that_are_text_join_no_rows_of_a_tsv(tmp_path, rest):
    """With the second rest the lines would be one valid row of three cells; the suggested command makes a table of all."""
    error = refusal(tmp_path, QUOTES + rest, "table.tsv")
    assert "table.tsv line 2 has a cell that begins with a quotation mark and does not end with one" in error.message
    command = error.hint.replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    plain = [line.split("\t") for line in (QUOTES + rest).splitlines()]
    found = [list(row.values.values()) for row in read_table(tmp_path / "converted.csv")]
    assert found == plain[1:]


def test_cells_of_several_lines_are_read_in_a_tsv(tmp_path):
    assert read(tmp_path, 'prompt\tb\n"x\ny"\t"a ""b"""\n', "t.tsv") == [{"prompt": "x\ny", "b": 'a "b"'}]
    assert read(tmp_path, 'prompt\n"x\ny"\n', "t.tsv") == [{"prompt": "x\ny"}]


EXPORT = {"pair_id": "p", "prompt": "Q", "response_a_id": "1", "response_b_id": "2", "preference": "a"}


def test_an_export_is_a_pool_without_its_guards(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_bytes(render_csv([EXPORT | {"response_a": "=1+1 is two", "response_b": "'- so"}]))
    [found] = read_recorded(path)
    assert [response.text for response in found.responses] == ["=1+1 is two", "'- so"]
    assert read_recorded_pairs(path).prompts[0].responses == found.responses
    path.write_bytes(render_csv([EXPORT | {"response_a": "x", "response_b": "=2"}]).replace(b'"guarded"', b'"old"'))
    with pytest.raises(InvalidDataError, match="line 2, response_b: the text begins with an apostrophe"):
        read_recorded(path)


@pytest.mark.parametrize(
    "header",
    [
        str.upper,
        str.title,
        lambda name: name.replace("_", " "),
        lambda name: name.replace(",", "\xa0, ").replace('"', ""),
    ],
)
def test_an_export_whose_header_was_spelled_anew_loses_its_guards_too(tmp_path, header):
    content = render_csv([EXPORT | {"response_a": "=1+1 is two", "response_b": "'- so"}]).decode("utf-8-sig")
    names, rest = content.split("\r\n", 1)
    path = tmp_path / "pairs.csv"
    path.write_text(f"{header(names)}\r\n{rest}", newline="")
    [found] = read_recorded(path)
    assert [response.text for response in found.responses] == ["=1+1 is two", "'- so"]
    path.write_text(f"{header(names)}\r\n{rest}".replace("uarded", "one").replace("UARDED", "ONE"), newline="")
    with pytest.raises(InvalidDataError, match="line 2, response_a: the text begins with an apostrophe"):
        read_recorded(path)


def test_an_export_that_was_changed_or_written_again_loses_its_guards_or_is_refused(tmp_path):
    """Columns that were taken out are named still; what was renamed may be guarded; and pandas writes JSON of it."""
    content = render_csv([EXPORT | {"response_a": "=1+1 is two", "response_b": "'- so", "notes": "=n"}]).decode(
        "utf-8-sig"
    )
    [row] = csv.DictReader(content.splitlines())
    assert row[GUARDED] == "response_a notes"
    del row["notes"]
    other = {"response_a": "chosen", "response_b": "rejected"}
    for name, spell in (
        ("pairs.jsonl", json.dumps),
        ("pairs.csv", lambda row: "\n".join(",".join(cells) for cells in (row, row.values()))),
    ):
        path = tmp_path / name
        path.write_text(spell(row))
        [found] = read_recorded(path)
        assert [response.text for response in found.responses] == ["=1+1 is two", "'- so"], name
        path.write_text(spell({other.get(column, column): cell for column, cell in row.items()}))
        with pytest.raises(InvalidDataError, match="(chosen|rejected): the text begins with an apostrophe"):
            read_recorded(path)


def test_a_column_of_that_name_that_guards_nothing_stays(tmp_path):
    assert read(tmp_path, f"prompt,{GUARDED}\n'=a,yes\n'=b,prompt\n") == [
        {"prompt": "'=a", GUARDED: "yes"},
        {"prompt": "=b"},
    ]


@pytest.mark.parametrize("cell", ['="123"', '"=""123"""'])
def test_a_formula_around_a_text_is_no_text(tmp_path, cell):
    """As spreadsheets are made to keep the zeros of 007; beside the texts it may stand."""
    path = tmp_path / "table.csv"
    for header, row in (("prompt,response_a,response_b", f"Q,x,{cell}"), ("prompt,chosen,rejected", f"{cell},x,y")):
        path.write_text(f"{header}\n{row}\n")
        with pytest.raises(InvalidDataError, match="'=\"123\"' is a formula by which a spreadsheet keeps a text"):
            read_recorded(path)
    path.write_text(f'prompt,response_a,response_b,number\nQ,x,"=""1""&""2""",{cell}\n')
    [found] = read_recorded(path)
    assert [response.text for response in found.responses] == ["x", '="1"&"2"']


def test_lines_of_json_and_tables_that_are_named_for_each_other(tmp_path):
    error = refusal(tmp_path, '{"prompt": "Q", "response": "x"}\n')
    assert (error.message, error.hint) == (
        "table.csv line 1 is an object, and a header names columns",
        "name the file `.jsonl`",
    )
    for separator, suffix in ((",", ".csv"), (";", ".csv"), ("\t", ".tsv")):
        error = refusal(tmp_path, f"Prompt{separator}response\nQ{separator}x\n", "table.jsonl")
        assert error.message == "table.jsonl line 1 names columns, and each line of JSON lines is an object"
        assert error.hint == f"name the file `{suffix}`"
