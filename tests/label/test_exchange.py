import contextlib
import csv
import hashlib
import io
import json

import pytest
from compared_pairs import make_comparison
from exchanged_files import export_pairs, import_answers
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.records import Label
from activedpo_cli.base.tables import parse_table
from activedpo_cli.label import exchange
from activedpo_cli.label.formats.csv import GUARDED, render_csv
from activedpo_cli.label.formats.jsonl import render_jsonl

NAMES = ["pairs.jsonl", "pairs.csv"]
COLUMNS = [
    "pair_id",
    "prompt",
    "response_a",
    "response_b",
    "preference",
    "annotator",
    "seconds",
    "notes",
    "response_a_id",
    "response_b_id",
]
HOSTILE = st.text(
    st.characters(codec=None) | st.sampled_from("=+-@\t\r\n\0'\"\\,;\u2028\u2029\x85\ud83d\ude00\udfff\ufeff"),
    max_size=12,
)
COMPARISONS = [make_comparison(number, f"a{number}", f"b{number}") for number in range(1, 5)]
DIALOGUE = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]


def parse_rows(data, name):
    return [(row.line, row.values) for row in parse_table(data, name)]


def filled(comparisons, name, answers, **columns):
    """What a person sends back: the exported rows with `preference` written in, by another reader and writer."""
    data = export_pairs(comparisons, name, seed=0)
    if name.endswith(".jsonl"):
        rows = [json.loads(line) for line in data.decode().splitlines()]
    else:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    for row, answer in zip(rows, answers, strict=True):
        row.update(preference=answer, **columns)
    return written(rows, name), rows


def written(rows, name):
    if name.endswith(".jsonl"):
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", NAMES)
def test_answers_come_back_as_response_ids(name):
    data, rows = filled(COMPARISONS, name, ["a", "B", "Both-Bad", ""], annotator="ann", seconds="3.5", notes="hm")
    assert [list(row)[:10] for row in rows] == [COLUMNS] * 4
    answers = import_answers(data, name, COMPARISONS)
    assert [(answer.pair_id, answer.outcome, answer.preferred_id) for answer in answers] == [
        (COMPARISONS[0].pair_id, "chosen", rows[0]["response_a_id"]),
        (COMPARISONS[1].pair_id, "chosen", rows[1]["response_b_id"]),
        (COMPARISONS[2].pair_id, "both_bad", None),
    ]
    assert {(answer.annotator, answer.seconds, answer.note) for answer in answers} == {("ann", 3.5, "hm")}


@pytest.mark.parametrize("name", NAMES)
def test_exported_texts_stand_beside_the_ids_they_belong_to(name):
    _, rows = filled(COMPARISONS, name, [""] * 4)
    for row, pair in zip(rows, COMPARISONS, strict=True):
        texts = {r.response_id: r.text for r in (pair.response_a, pair.response_b)}
        assert texts[row["response_a_id"]] == row["response_a"]
        assert texts[row["response_b_id"]] == row["response_b"]
    firsts = {row["response_a_id"][-2:] for row in rows}
    assert firsts == {"r0", "r1"}, "sides are shuffled"


@pytest.mark.parametrize("name", NAMES)
def test_an_untouched_export_answers_nothing(name):
    assert import_answers(export_pairs(COMPARISONS, name, seed=3), name, COMPARISONS) == []
    assert import_answers(export_pairs([], name, seed=3), name, COMPARISONS) == []


@pytest.mark.parametrize("name", NAMES)
@given(texts=st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE), min_size=1, max_size=3), annotator=HOSTILE)
def test_any_text_makes_the_round_trip(name, texts, annotator):
    comparisons = [make_comparison(i, a, b, prompt=prompt) for i, (prompt, a, b) in enumerate(texts)]
    annotator = annotator.encode("utf-8", "replace").decode()
    data = export_pairs(comparisons, name, annotator=annotator, seed=1)
    rows = [row | {"preference": "a"} for _, row in parse_rows(data, name)]
    again = (render_csv if name.endswith("csv") else render_jsonl)(rows)
    answers = import_answers(again, name, comparisons)
    assert [answer.pair_id for answer in answers] == [pair.pair_id for pair in comparisons]
    for answer, row in zip(answers, rows, strict=True):
        assert answer.preferred_id == row["response_a_id"]
        assert answer.annotator == (annotator.strip() or None)


@pytest.mark.parametrize("name", NAMES)
def test_blanks_around_a_name_make_nobody_another_person(name):
    _, rows = filled(COMPARISONS, name, ["a"] * 4)
    named = [row | {"annotator": person} for row, person in zip(rows, ["ann ", "\tann", " ", "ann"], strict=True)]
    answers = import_answers(written(named, name), name, COMPARISONS, annotator="bob")
    assert [answer.annotator for answer in answers] == ["ann", "ann", "bob", "ann"]
    assert [answer.answer_id for answer in answers][::2] == ["file:ann:p000001/i001/r0-r1", None]
    twice = written([rows[0] | {"annotator": person} for person in ("ann", "ann ")], name)
    assert len(import_answers(twice, name, COMPARISONS)) == 1


@given(st.lists(st.tuples(HOSTILE, HOSTILE), max_size=4))
def test_jsonl_gives_every_text_back(texts):
    rows = [{"x": carried_by_utf8(x), "y": carried_by_utf8(y)} for x, y in texts]
    data = render_jsonl([{"x": x, "y": y} for x, y in texts])
    assert [row for _, row in parse_rows(data, "f.jsonl")] == rows
    assert data.count(b"\n") == len(rows)
    data.decode("ascii")


def carried_by_utf8(text):
    joined = json.loads(json.dumps(text))
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in joined)


@given(st.lists(st.tuples(HOSTILE, HOSTILE), min_size=1, max_size=4))
def test_csv_gives_every_text_back_that_utf8_can_carry(texts):
    rows = [{"id": str(place), "x": x, "y": y} for place, (x, y) in enumerate(texts)]
    parsed = [row for _, row in parse_rows(render_csv(rows), "f.csv")]
    assert parsed == [{column: carried_by_utf8(cell) for column, cell in row.items()} for row in rows]


@given(st.lists(st.tuples(HOSTILE, HOSTILE), min_size=1, max_size=4))
def test_no_csv_cell_starts_a_formula(texts):
    data = render_csv([{"id": str(place), "x": x, "y": y} for place, (x, y) in enumerate(texts)])
    assert data.startswith(b"\xef\xbb\xbf")
    for cells in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\0")) for cell in cells)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\0"])
def test_every_start_of_a_formula_is_guarded(start):
    data = render_csv([{"x": f"{start}1+1"}])
    assert f'"\'{start}1+1"'.encode() in data
    assert parse_rows(data, "f.csv") == [(2, {"x": f"{start}1+1"})]


def test_only_our_own_guard_is_taken_off():
    rows = [{"x": "=1+1", "y": "'quoted'"}, {"x": "'=2", "y": "-3"}]
    text = render_csv(rows).decode("utf-8-sig")
    assert text == f'"x","y","{GUARDED}"\r\n"\'=1+1","\'quoted\'","x"\r\n"\'=2","\'-3","y"\r\n'
    assert [row for _, row in parse_rows(text.encode(), "f.csv")] == rows
    eaten = text.replace('"\'-3"', '"-3"')  # some spreadsheets swallow the apostrophe
    assert [row for _, row in parse_rows(eaten.encode(), "f.csv")] == rows


@pytest.mark.parametrize(("with_mark", "delimiter"), [(True, ","), (False, ","), (True, ";"), (False, "\t")])
def test_csv_as_spreadsheets_save_it(with_mark, delimiter):
    data, _ = filled(COMPARISONS, "pairs.csv", ["a", "b", "tie", "skip"])
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows(rows)
    saved = stream.getvalue().encode("utf-8-sig" if with_mark else "utf-8")
    answers = import_answers(saved, "pairs.csv", COMPARISONS)
    assert answers == import_answers(data, "pairs.csv", COMPARISONS)
    assert [answer.outcome for answer in answers] == ["chosen", "chosen", "tie", "skip"]


@pytest.mark.parametrize("name", ["pairs.json", "pairs.tsv", "pairs.parquet", "pairs.jsonl.gz"])
def test_answers_come_back_in_any_table(name, tmp_path):
    """Written by the library `pandas` or `json`, as people save what they filled in elsewhere."""
    pandas = pytest.importorskip("pandas")
    data, rows = filled(COMPARISONS, "pairs.jsonl", ["a", "b", "tie", ""])
    table, path = pandas.DataFrame(rows), tmp_path / name
    if name.endswith("json"):
        path.write_text(json.dumps(rows))
    elif name.endswith("gz"):
        table.to_json(path, orient="records", lines=True)
    elif name.endswith("tsv"):
        table.to_csv(path, sep="\t", encoding="utf-16")
    else:
        table.to_parquet(path)
    assert import_answers(path.read_bytes(), name, COMPARISONS) == import_answers(data, "pairs.jsonl", COMPARISONS)


def test_a_guard_whose_column_was_taken_out_is_known_by_the_stored_text():
    pairs = [make_comparison(1, "=1+1", "'=2"), make_comparison(2, "-x", "y")]
    data, rows = filled(pairs, "pairs.csv", ["a", "b"])
    slim = [{column: cell for column, cell in row.items() if column != GUARDED} for row in rows]
    assert sum(cell.startswith("'") for row in rows for cell in row.values()) == 3
    answers = import_answers(written(slim, "pairs.csv"), "pairs.csv", pairs)
    assert answers == import_answers(data, "pairs.csv", pairs)
    slim[1]["response_b"] = "'y"
    assert "is not the stored text" in problems(slim, "pairs.csv", pairs)


def test_line_breaks_that_a_spreadsheet_rewrote_are_the_same_text():
    pairs = [make_comparison(1, "one\r\ntwo\rthree", "x\ny")]
    data, _ = filled(pairs, "pairs.csv", ["b"])
    (answer,) = import_answers(data.replace(b"one\r\ntwo\rthree", b"one\ntwo\nthree"), "pairs.csv", pairs)
    assert answer.outcome == "chosen"


def test_json_of_other_tools_keeps_its_unescaped_separators():
    row = {"text": "one\u2028two\x85three"}
    data = (json.dumps(row, ensure_ascii=False) + "\r\n\r\n" + json.dumps(row, ensure_ascii=False)).encode()
    assert parse_rows(data, "f.jsonl") == [(1, row), (3, row)]


def test_messages_become_text():
    pair = make_comparison(1, prompt=DIALOGUE)
    data, rows = filled([pair], "pairs.jsonl", ["tie"])
    assert rows[0]["prompt"] == "system: Be kind.\n\nuser: Hi"
    assert import_answers(data, "pairs.jsonl", [pair])[0].outcome == "tie"


def problems(rows, name="pairs.jsonl", comparisons=COMPARISONS):
    with pytest.raises(InvalidDataError) as raised:
        import_answers(written(rows, name), name, comparisons)
    return "\n".join([raised.value.message, *raised.value.details])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"preference": "tei"}, "line 3: the preference is `tei` — did you mean `tie`?"),
        ({"preference": "left"}, "line 3: the preference is `left`, which is none of a, b, tie, both_bad, skip"),
        ({"pair_id": "p000099/i001/r0-r1"}, "line 3: pair `p000099/i001/r0-r1` is not one of those to be labelled"),
        ({"response_a": "something else"}, "line 3: the response_a of pair `p000002/i001/r0-r1` is not the stored"),
        ({"prompt": "another question"}, "line 3: the prompt of pair `p000002/i001/r0-r1` is not the stored text"),
        ({"response_a_id": "p000001/i001/r0"}, "are not the responses of pair `p000002/i001/r0-r1`"),
        ({"seconds": "soon"}, "line 3: seconds is `soon`"),
        ({"seconds": "-1"}, "line 3: seconds is `-1`"),
        ({"seconds": "nan"}, "line 3: seconds is `nan`"),
        ({"seconds": "1_000"}, "line 3: seconds is `1_000`"),
        ({"seconds": "12,5"}, "line 3: seconds is `12,5`, not a number of seconds; write 12.5, with a point"),
    ],
)
def test_a_problem_is_told_with_its_line(name, change, expected):
    _, rows = filled(COMPARISONS, name, ["a"] * 4)
    rows[1].update(change)
    if name.endswith("jsonl"):
        expected = expected.replace("line 3", "line 2")
    assert expected in problems(rows, name)


def test_swapped_texts_answer_another_question():
    _, rows = filled(COMPARISONS, "pairs.jsonl", ["a"] * 4)
    rows[0]["response_a"], rows[0]["response_b"] = rows[0]["response_b"], rows[0]["response_a"]
    assert "line 1: the response_a" in problems(rows)


def test_all_problems_are_told_at_once():
    _, rows = filled(COMPARISONS, "pairs.jsonl", ["x", "a", "y", "a"])
    message = problems(rows)
    assert all(part in message for part in ("has 2 problems", "line 1", "line 3"))


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_column_is_named(name):
    _, rows = filled(COMPARISONS, name, ["a"] * 4)
    assert "lacks `preference`" in problems([{k: v for k, v in row.items() if k != "preference"} for row in rows], name)


@pytest.mark.parametrize("name", NAMES)
def test_texts_may_be_left_out(name):
    _, rows = filled(COMPARISONS, name, ["a"] * 4)
    slim = [{k: v for k, v in row.items() if k not in ("prompt", "response_a", "response_b", GUARDED)} for row in rows]
    assert len(import_answers(written(slim, name), name, COMPARISONS)) == 4


def test_repeated_answers_count_once_and_contradictions_are_errors():
    _, rows = filled(COMPARISONS, "pairs.jsonl", ["a", "tie", "", "b"])
    twice = [*rows, *rows]
    assert len(import_answers(written(twice, "pairs.jsonl"), "pairs.jsonl", COMPARISONS)) == 3
    contradicting = [*rows, rows[0] | {"preference": "b"}]
    assert "line 5: pair `p000001/i001/r0-r1` has another answer in line 1" in problems(contradicting)
    swapped = dict(rows[0], preference="b")
    for column in ("response_{}", "response_{}_id"):
        a, b = column.format("a"), column.format("b")
        swapped[a], swapped[b] = swapped[b], swapped[a]
    agreeing = written([*rows, swapped], "pairs.jsonl")
    assert len(import_answers(agreeing, "pairs.jsonl", COMPARISONS)) == 3


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b'{"a": 1}\n\xff\n', "x.jsonl", "line 2 is not UTF-8"),
        (b"pair_id\n\n\xff\n", "x.csv", "line 3 is not UTF-8"),
        (b"\n{]\n", "x.jsonl", "line 2, column 2 is not JSON"),
        (b"[" * 100_000, "x.jsonl", "line 1 is JSON that cannot be read"),
        (b"[1]\n", "x.jsonl", "item 1 is no object"),
        (b'pair_id,preference\n"x"y,a\n', "x.csv", "line 2 is no valid row"),
        (b'a,b\n"unclosed,a\n', "x.csv", "line 2 is no valid row"),
        (b"a,b\n1,2\n1,2,3\n", "x.csv", "line 3 has 3 cells, and the header names 2 columns"),
        (
            b'{"pair_id": ["x"], "preference": "a", "response_a_id": "", "response_b_id": ""}',
            "x.jsonl",
            "`pair_id` is no",
        ),
    ],
)
def test_malformed_files_are_refused_with_a_line(data, name, expected):
    with pytest.raises(InvalidDataError) as raised:
        import_answers(data, name, COMPARISONS)
    assert expected in "\n".join([raised.value.message, *raised.value.details])


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(name, data):
    with contextlib.suppress(InvalidDataError):
        import_answers(data, name, COMPARISONS)


def test_lines_are_counted_through_texts_of_several_lines():
    pairs = [make_comparison(1, "one\ntwo\nthree", "x"), make_comparison(2)]
    data, rows = filled(pairs, "pairs.csv", ["a", "nonsense"])
    assert "line 5: the preference" in problems(rows, "pairs.csv", pairs)
    assert data.decode().split("\n")[4].startswith("p000002")


def test_cells_longer_than_the_csv_default():
    pairs = [make_comparison(1, "x" * 300_000, "y")]
    csv.field_size_limit(131_072)
    exported = export_pairs(pairs, "pairs.csv", seed=0).decode("utf-8-sig")
    answered = exported.replace('"y","",', '"y","tie",').replace('x","",', 'x","tie",')
    assert len(import_answers(answered.encode(), "pairs.csv", pairs)) == 1
    assert csv.field_size_limit() == 131_072


def test_another_suffix_is_a_usage_error():
    with pytest.raises(UsageError, match="neither in .jsonl nor in .csv"):
        export_pairs(COMPARISONS, "pairs.xlsx", seed=0)


def test_an_answer_becomes_a_label():
    pair = COMPARISONS[0]
    data, (row,) = filled([pair], "pairs.jsonl", ["b"], seconds=2.0, notes="sure")
    (label,) = import_answers(data, "pairs.jsonl", [pair], oracle="crowd", annotator="ann")
    assert label == Label(
        pair_id="p000001/i001/r0-r1",
        outcome="chosen",
        preferred_id=row["response_b_id"],
        oracle="crowd",
        annotator="ann",
        seconds=2.0,
        note="sure",
        texts=[hashlib.sha256(text).hexdigest() for text in (b'"Which one?"', b'"a1"', b'"b1"')],
        first_id=row["response_a_id"],
        channel="file",
    )


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", "pair_id,preference,preference\np,a,b\n", "line 1: the header names 'preference' twice"),
        ("a.csv", 'pair_id,preference\np,a\nq,"b\n', "line 3 is no valid row"),
        (
            "a.jsonl",
            '\n{"pair_id": "p", "preference": "a", "preference": "b"}\n',
            "line 2 is JSON that cannot be read: it names 'preference' twice",
        ),
    ],
)
def test_what_would_be_lost_is_named(name, data, said):
    with pytest.raises(InvalidDataError) as refusal:
        parse_rows(data.encode(), name)
    assert said in refusal.value.message


@pytest.mark.parametrize(
    "cell", ["=1", "\n=1", " \t=1", "\ufeff=1", "\u200b@x", "\uff1d1", "\uff0b1", "'=1", "-1", "+1", "\0"]
)
def test_no_cell_is_a_formula_and_each_comes_back(cell):
    data = render_csv([{"a": cell, "b": "x"}])
    _, written = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    ((_, row),) = parse_rows(data, "x.csv")
    assert written[0].startswith("'")
    assert row == {"a": cell, "b": "x"}


def _label(pair: int, said: str, annotator: str | None) -> Label:
    return Label(pair_id=f"p{pair}", outcome=said, preferred_id=None, oracle="human", annotator=annotator)  # type: ignore[arg-type]


def test_a_long_file_is_compared_with_many_answers_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is laid beside those to its own pair: 3,000 rows take 3,000 comparisons, not nine million."""
    compared, real = 0, exchange._is_of_same_person

    def counted(label: Label, earlier: Label) -> bool:
        nonlocal compared
        compared += 1
        return real(label, earlier)

    monkeypatch.setattr(exchange, "_is_of_same_person", counted)
    standing = [_label(pair, "tie", "ann") for pair in range(3000)]
    assert exchange.differing_answers([_label(pair, "tie", "ann") for pair in range(3000)], standing) == []
    assert compared == 3000
    assert exchange.new_answers([_label(pair, "tie", "ann") for pair in range(3000)], standing, []) == []
    assert compared == 6000


def test_an_answer_under_the_very_name_goes_before_one_without_a_name() -> None:
    """A file without names was imported, then bo answered on a page, otherwise; a file of bo's answer repeats it."""
    standing = [_label(1, "tie", None), _label(1, "both_bad", "bo")]
    assert exchange.differing_answers([_label(1, "both_bad", "bo")], standing) == []
    assert exchange.differing_answers([_label(1, "skip", "bo")], standing) == ["pair `p1`: both_bad → skip"]
    assert exchange.differing_answers([_label(1, "skip", "cy")], standing) == ["pair `p1`: tie → skip"]
