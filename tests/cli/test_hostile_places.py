"""Hostile text wherever text may stand, through the command line to every output: kept, shown, and without effect."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import activedpo, on, rows
from hostile_text import HOSTILE, steering, steering_beyond_our_own, would_run
from pseudo_terminal import Terminal
from report_page import check_inert, draw_quickly
from small_runs import SMALL, small_run
from typer.testing import Result
from zygote import Zygote

from activedpo_cli.base.display import display_text
from activedpo_cli.base.tables import parse_table

FOLDER = "[red] =x \x1b]0;t\x07\u202e{{ 7*7 }} <script>"
FILE = "pool [red] \x1b[2J\u2066'\".jsonl"
KEPT = {name: "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text) for name, text in HOSTILE.items()}
"""What can be stored of it: a file of the person's own can spell lone surrogates, and no UTF-8 file can hold them."""


def responses_to(text: str) -> list[str]:
    return [text, f"1 {text}"]


def harmless(*words: object, code: int = 0, typed: str | None = None) -> Result:
    """Run a command of whose output nothing acts on a terminal."""
    result = activedpo(*words, typed=typed)
    assert result.exit_code == code, result.output
    assert not steering(result.stdout)
    assert not steering(result.stderr)
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Iterator[Path]:
    """A run whose prompts, responses, score names and paths are hostile, selected and waiting for people."""
    folder = tmp_path_factory.mktemp("hostile") / FOLDER
    folder.mkdir()
    found: list[dict[str, Any]] = [
        {"prompt": text, "responses": [{"text": row, "=rm [/x]\x1b[1m": n} for n, row in enumerate(responses_to(text))]}
        for text in HOSTILE.values()
    ]
    (folder / FILE).write_text("".join(json.dumps(row) + "\n" for row in found))
    changed = {
        "select.budget": len(HOSTILE), "select.max_per_prompt": 1, "generate.num_prompts": None,
        "train.per_device_train_batch_size": 12, "generate.responses": FILE, "label.oracle": "human",
        "evaluate.scorer": "python:letter_rule:score",
    }  # fmt: skip
    words = [word for key, value in (SMALL | changed).items() for word in ("--set", f"{key}={json.dumps(value)}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = folder / "runs" / "hostile"
        start = ("--model", small_model, "--prompts", FILE, "--eval-prompts", 0)
        harmless(*on(run, "init"), *start, *words)
        for stage in ("generate", "featurize", "select"):
            harmless(*on(run, stage))
        yield run


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made.parents[1])
    return Path(shutil.copytree(made, tmp_path / FOLDER / "hostile"))


def test_what_is_stored_is_what_was_given(made: Path) -> None:
    """Bytes split at the newline alone; every text is there, each once, and nothing else is."""
    prompts = rows(made / "prompts.jsonl")
    assert sorted(row["prompt"] for row in prompts) == sorted(KEPT.values())
    stored = rows(made / "pool" / "responses.jsonl")
    assert sorted(row["text"] for row in stored) == sorted(row for text in KEPT.values() for row in responses_to(text))
    names = {row["prompt_id"]: row["prompt"] for row in prompts}
    assert all(names[row["prompt_id"]] in row["text"] for row in stored)
    assert len(rows(made / "iter-001" / "select" / "selection.jsonl")) == len(HOSTILE)


@pytest.mark.parametrize("name", ["answers.csv", pytest.param("answers =[x] \x1b[1m.jsonl", marks=pytest.mark.slow)])
def test_through_a_file_and_back(run: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    harmless(*on(run, "label"), "--export", path, "--annotator", "=1+\x1b[1m", code=5)
    exported = [row.values for row in parse_table(path.read_bytes(), path.name)]
    assert sorted(row["prompt"] for row in exported) == sorted(KEPT.values())
    texts = {row["response_id"]: row["text"] for row in rows(run / "pool" / "responses.jsonl")}
    assert all(texts[row[f"response_{side}_id"]] == row[f"response_{side}"] for row in exported for side in "ab")
    answer_all(path)
    harmless(*on(run, "label"), "--import", path, "--quiet")
    said = {row["label"]["note"] for row in rows(run / "iter-001" / "label" / "labels.jsonl")}
    assert {*KEPT.values()} <= said | (set(HOSTILE.values()) if path.suffix == ".jsonl" else set())
    bought = rows(run / "iter-001" / "label" / "preferences.jsonl")
    assert sorted(row["prompt"] for row in bought) == sorted(KEPT.values())
    assert all(texts[row[f"{side}_id"]] == row[side] for row in bought for side in ("chosen", "rejected"))
    if path.suffix == ".csv":
        look_at_everything(run, monkeypatch)


def answer_all(path: Path) -> None:
    """Write answers and hostile notes into a file as another program would; nothing in it is a formula as it comes."""
    notes = list(KEPT.values())
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
        answered = [row | {"preference": "a", "notes": note} for row, note in zip(lines, notes, strict=True)]
        path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in answered))
        return
    table = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    assert not [cell for row in table for cell in row if would_run(cell)]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(table[0])
    preference, note_place = table[0].index("preference"), table[0].index("notes")
    for row, note in zip(table[1:], notes, strict=True):
        row[preference], row[note_place] = "a", note
        writer.writerow(row)
    path.write_bytes(stream.getvalue().encode())


def look_at_everything(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, then every command that shows something, and the page."""
    draw_quickly(monkeypatch)
    harmless(*on(run, "train"))
    looks: list[tuple[object, ...]] = [
        ("status",),
        ("status", "--json"),
        ("show",),
        ("show", "--json"),
        ("show", "--why"),
    ]
    pairs = [row["pair_id"] for row in rows(run / "iter-001" / "select" / "selection.jsonl")]
    looks += [("show", pair) for pair in pairs] + [("show", pairs[0], "--json"), ("show", pairs[0], "--why")]
    for words in (*looks, ("compare", "--method", "random"), ("verify",)):
        result = activedpo(*on(run, *words))
        assert result.exit_code in (0, 2), result.output  # a form that is none is refused, as harmlessly
        assert not steering(result.output)
    shown = harmless(*on(run, "show", pairs[0])).stdout
    assert "prompt" in shown
    harmless("report", run)
    check_inert(run / "report" / "index.html")
    json.loads((run / "report" / "report.json").read_bytes())


def test_at_a_terminal(run: Path, tmp_path: Path, zygote: Zygote) -> None:
    """A sitting: every text is seen, none acts, and none passes for a line of the session."""
    terminal = Terminal(columns=200, rows=60)
    terminal.type("n [/x] =1\n" + "1\n" * len(HOSTILE))
    assert terminal.run(zygote, on(run, "label", "--plain", "--annotator", "[/x]\u202e"), tmp_path) == 0
    assert not steering_beyond_our_own(terminal.raw)
    written = terminal.raw.decode().replace("\r\n", "\n")
    assert "    \\x1b[2J\\x1b[Hgone\n" in written
    assert "    [/foo] [red]x[/] [link=http://x]y [@click=app.quit]\n" in written
    assert "\nsaved   9/9" not in written
    assert len(re.findall(r"^(?:> )*saved   ", written, re.MULTILINE)) == len(HOSTILE)
    first = rows(run / "iter-001" / "label" / "labels.jsonl")[0]["label"]
    assert (first["note"], first["annotator"]) == ("[/x] =1", "[/x]\u202e")


def test_the_live_view_and_the_report(
    tmp_path: Path, small_model: Path, zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With prompts that are held out, and the name of a model, which both show."""
    folder = tmp_path / FOLDER
    model = Path(shutil.copytree(small_model, folder / "model [/x]\x1b[2J\u202e"))
    prompts = folder / FILE
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in HOSTILE.values()))
    run = small_run(folder / "run", model, prompts, eval_prompts=30, generate__num_prompts=4)
    terminal = Terminal(columns=300, rows=40)
    assert terminal.run(zygote, on(run, "run", "--iterations", 1, "--no-report"), tmp_path) == 0
    assert not steering_beyond_our_own(terminal.raw)
    assert "[/x]" in terminal.raw.decode()
    draw_quickly(monkeypatch)
    harmless("report", run)
    page = check_inert(run / "report" / "index.html")
    assert [text for text in KEPT.values() if display_text(text) in page.text], "some of them are among the samples"
    harmless(*on(run, "status"))


@pytest.mark.parametrize("name", ["C1", "markup", "surrogates", "lines", "right to left", "message"])
def test_as_words_of_a_command(run: Path, name: str) -> None:
    """What is refused is named without effect, by us and by the library that reads the words."""
    text = HOSTILE[name].replace("\0", "")
    new = ("init", "--run", "x")
    for words in (
        *(
            ("ls", text),
            (text,),
            ("status", f"--{text}"),
            ("report", text),
            ("experiment", text),
            ("show", text, "--run", run),
        ),
        *((*new, "--model", text), (*new, "--prompts", text), on(run, "compare", "--method", text)),
        *(on(run, "select", option, text) for option in ("--method", "--budget", "--set")),
        *(on(run, "label", option, text) for option in ("--oracle", "--import", "--export", "--guidelines")),
        ("select", "--features", text, "--pairs", text, "--output", "x.jsonl"),
        on(run, "generate", "--iteration", 9, "--responses", f"{text}.jsonl"),
    ):
        result = activedpo(*words)
        assert result.exit_code != 0, (words, result.output)
        assert not steering(result.output), words
