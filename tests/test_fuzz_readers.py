"""Damaged and strange files of every format, to every reader of what people bring: each is read or refused in words.

ACTIVEDPO_FUZZ_SECONDS=600 ACTIVEDPO_FUZZ_SEED=1 pytest -n0 -s -m slow tests/test_fuzz_readers.py
"""

import collections
import copy
import csv
import gzip
import io
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from compared_pairs import make_comparison
from exchanged_files import export_pairs, import_answers

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.base.records import Prompt
from activedpo_cli.base.settings import PromptSettings
from activedpo_cli.base.tables import TABLE_SUFFIXES
from activedpo_cli.generate.backends._recorded import (
    match_to_prompts,
    read_preferences,
    read_recorded,
    read_recorded_pairs,
)
from activedpo_cli.prompts._collect import collect_prompts
from activedpo_cli.select.from_files.pair_list import read_pairs
from activedpo_cli.train.sft_data import read_sft_rows

SECONDS = float(os.environ.get("ACTIVEDPO_FUZZ_SECONDS", "20"))
SEED = int(os.environ.get("ACTIVEDPO_FUZZ_SEED", "0"))
LONGEST_FILE = 10.0
"""Seconds in which a file of a few kilobytes must be read or refused."""

ASKED = [{"role": "user", "content": "Q"}]
SAID = [{"role": "assistant", "content": "yes"}]
TURNS = "\n\nHuman: Hi\n\nAssistant:"
COMPARISONS = [make_comparison(number, f"=a{number}", f"b\n{number}") for number in range(1, 4)]
ROWS: list[dict[str, Any]] = [
    {"prompt": "a", "response": "b", "rm": 0.5, "finish_reason": "stop"},
    {"prompt": 'a, "b"\nc', "responses": ["x", {"text": "y", "rm": "1e3", "good": True}]},
    {"prompt": "Q: ", "chosen": "Q: good", "rejected": "Q: bad", "system": "Be kind."},
    {"prompt": ASKED, "chosen": ASKED + SAID, "rejected": SAID, "messages": ASKED + SAID},
    {"chosen": ASKED + SAID, "rejected": ASKED + SAID},
    {"prompt": "Q", "response_a": "x", "response_b": "y", "preference": "tie"},
    {"chosen": TURNS + " a", "rejected": TURNS + " b"},
    {"history": "Q", "human_ref_A": "x", "human_ref_B": "y", "labels": 1},
    {"context": ASKED, "response1": "x", "response2": "y", "overall_preference": -1},
    {"prompt": "Q", "response_1": "x", "response_2": "y", "preference_strength": 2},
    {"prompt": "Q", "answers": [{"answer": "x", "rank": 1.0}, {"answer": "y", "rank": 2}]},
    {"instruction": "Q", "completions": [{"response": "x", "overall_score": 2}], "chosen_response": "x"},
    {"conversations": [{"from": "human", "value": "Q"}], "chosen": {"from": "gpt", "value": "x"}, "rejected": "y"},
    {"instruction": "Q", "input": "", "output": "A"},
    {"question": {"full_text": "Q"}, "answer_0": "x", "answer_1": "y", "score_0": 1, "score_1": -1},
    {
        "input": {"messages": ASKED},
        "preferred_output": SAID,
        "non_preferred_output": [{"role": "assistant", "content": "n"}],
    },
    {"messages": ASKED + SAID},
    {"text": "all of it"},
    {"pair_id": "x", "response_a": 0, "response_b": 1, "prompt_id": 3},
    *(json.loads(line) for line in export_pairs(COMPARISONS, "x.jsonl", seed=0).splitlines()),
]
VALUES = [
    *(
        None,
        True,
        0,
        -1,
        3.5,
        1e308,
        10**30,
        float("nan"),
        float("inf"),
        "",
        " ",
        "a",
        "tie",
        "=1",
        "'=1",
        "\ud800",
        "x" * 5000,
    ),
    *(
        [],
        {},
        [[]],
        [None],
        ["a", "b"],
        {"a": 1},
        ASKED,
        SAID,
        ASKED + SAID,
        [{"role": "user"}],
        [{"from": "gpt", "value": None}],
    ),
    *(
        {"role": "user", "content": "x"},
        {"from": 3, "value": "x"},
        "[{'role': 'user', 'content': 'x'}]",
        TURNS,
        TURNS * 3,
    ),
]
JUNK = [
    *(
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\0",
        b"\n",
        b"\r",
        b"\t",
        b'"',
        b"'",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b";",
        b": ",
        b"\\ud800",
    ),
    *(
        b"sep=;\n",
        b"NaN",
        b"-Infinity",
        b"null",
        b"1e999",
        b"9" * 5000,
        b"[" * 3000,
        b'{"a":' * 3000,
        b"\xe2\x80\xa8",
        b"PAR1",
    ),
    *(
        b"\x1f\x8b",
        b"PK\x03\x04",
        b"guarded",
        b"prompt",
        b'"chosen"',
        b"\\u0000",
        b"\xed\xa0\x80",
        b"''=1",
        b"|",
        b'""',
    ),
]


def _csv(rows: list[dict[str, Any]], chance: random.Random) -> bytes:
    stream = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(
        stream, names, delimiter=chance.choice(",,;\t|"), lineterminator=chance.choice(["\n", "\r\n", "\r"])
    )
    writer.writeheader()
    for row in rows:
        writer.writerow({name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()})
    return stream.getvalue().encode(chance.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"]), "replace")


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


def _content(rows: list[dict[str, Any]], suffix: str, chance: random.Random) -> bytes:
    plain = suffix.removesuffix(".gz")
    if plain in (".csv", ".tsv"):
        made = _csv(rows, chance)
    elif plain == ".parquet":
        try:
            made = _parquet(rows)
        except Exception:  # rows whose columns have no common type are no table for its library
            made = _parquet([{"prompt": "a", "response": "b"}])
    elif plain == ".json" and chance.random() < 0.7:
        made = json.dumps(rows if chance.random() < 0.8 else {"data": rows}, indent=chance.choice([None, 1])).encode()
    elif plain == ".txt":
        made = "\n".join(str(row) for row in rows).encode("utf-8", "replace")
    else:
        made = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    return made


def _strange(rows: list[dict[str, Any]], chance: random.Random) -> list[dict[str, Any]]:
    """The rows with some of their values, columns or places changed."""
    rows = json.loads(json.dumps(rows))
    for _ in range(chance.randrange(4)):
        row = chance.choice(rows)
        name = chance.choice([*row] or ["prompt"])
        act = chance.randrange(5)
        if act == 0:
            row[name] = copy.deepcopy(chance.choice(VALUES))
        elif act == 1:
            row.pop(name, None)
        elif act == 2:
            row[chance.choice([name.upper(), f" {name} ", name.replace("_", " "), "guarded", ""])] = row.get(name)
        elif act == 3:
            row.update(copy.deepcopy(chance.choice(ROWS)))
        elif isinstance(row.get(name), list) and row[name]:
            inner = chance.choice(row[name])
            if isinstance(inner, dict) and inner:
                inner[chance.choice([*inner])] = copy.deepcopy(chance.choice(VALUES))
    return rows


def _damaged(data: bytes, chance: random.Random) -> bytes:
    """The bytes with a few of them lost, doubled, changed or added."""
    for _ in range(chance.choice([0, 0, 1, 1, 2, 5])):
        start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        act = chance.randrange(5)
        if act == 0:
            data = data[:start] + chance.choice(JUNK) + data[start:]
        elif act == 1:
            data = data[:start] + data[min(end, start + 20) :]
        elif act == 2:
            data = data[:end] + data[start:end] + data[end:]
        elif act == 3:
            data = data[:start]
        elif data:
            data = data[: max(start - 1, 0)] + bytes([chance.randrange(256)]) + data[start:]
    return data


def _collected(path: Path) -> list[Prompt]:
    settings = PromptSettings(source=str(path), eval_prompts=0, column="prompt")
    return collect_prompts(settings, 0, skip_empty=path.stat().st_size % 2 == 0).prompts


def _pool(path: Path) -> Any:
    recorded = read_recorded(path)
    prompts = [Prompt(prompt_id=f"p{n}", split="train", prompt=item.prompt) for n, item in enumerate(recorded)]
    return match_to_prompts(recorded, prompts).pool


def _pairs(path: Path) -> Any:
    read = read_recorded_pairs(path)
    assert sum(len(item.pairs) for item in read.prompts) + sum(map(len, read.left_out.lines.values())) == read.rows
    return read.prompts


READERS: dict[str, Callable[[Path], Any]] = {
    "prompts": _collected,
    "responses": _pool,
    "pairs": _pairs,
    "preferences": lambda path: read_preferences(path)[0],
    "examples": read_sft_rows,
    "pairs of rows": lambda path: len(read_pairs(path, 4, SilentProgress())),
    "answers": lambda path: import_answers(path.read_bytes(), path.name, COMPARISONS),
}


def _files(folder: Path, chance: random.Random) -> Iterator[Path]:
    while True:
        suffix = chance.choice(TABLE_SUFFIXES)
        like = chance.choice(ROWS)
        rows = [dict(like) for _ in range(chance.randrange(1, 4))]
        rows = [*rows, chance.choice(ROWS)] if chance.random() < 0.3 else rows
        data = _damaged(_content(_strange(rows, chance), suffix, chance), chance)
        if suffix.endswith(".gz"):
            data = gzip.compress(data, 1)
            data = _damaged(data, chance) if chance.random() < 0.2 else data
        path = folder / f"file{suffix}"
        path.write_bytes(data)
        yield path


def _end(read: Callable[[Path], Any], path: Path) -> str:
    """Whether a reader reads or refuses a file; what it says or gives has to be text that can be written."""
    try:
        found = read(path)
    except (InvalidDataError, UsageError) as refusal:
        "\n".join([refusal.message, *refusal.details, refusal.hint or ""]).encode()
        return "refused"
    json.dumps(found, default=repr, ensure_ascii=False).encode()
    return "read"


@pytest.mark.slow
@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")
@pytest.mark.timeout(SECONDS + 60)
def test_every_file_is_read_or_refused_in_words(tmp_path: Path) -> None:
    chance, ends = random.Random(SEED), collections.Counter[str]()
    end = time.monotonic() + SECONDS
    for number, path in enumerate(_files(tmp_path, chance)):
        if time.monotonic() > end:
            break
        for name, read in READERS.items():
            what, started = f"{name} of {path.name}, file {number} of seed {SEED}", time.monotonic()
            try:
                ends[f"{name} {_end(read, path)}"] += 1
            except Exception as error:
                raise AssertionError(f"{what}: {error!r}; it holds {path.read_bytes()!r:.3000}") from error
            assert time.monotonic() - started < LONGEST_FILE, f"{what} took long; it holds {path.read_bytes()!r:.1000}"
    print(dict(sorted(ends.items())))
    assert all(ends[f"{name} read"] and ends[f"{name} refused"] for name in READERS)
