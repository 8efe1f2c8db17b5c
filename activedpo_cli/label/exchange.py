"""`label --export` and `--import`: pairs out to a file that people fill in anywhere, and their answers back.

One row per pair: `pair_id, prompt, response_a, response_b, preference, annotator, seconds, notes`, and the ids of the
two responses, `response_a_id` and `response_b_id`. Sides are shuffled; answers are joined by ids, never by texts.

What is written is JSONL or CSV, told apart by the suffix; what comes back may be any table that `base/tables.py` reads.
CSV cells that a spreadsheet would run as a formula get an apostrophe in front, and the column `guarded` names the columns
that got one, so that reading takes off that apostrophe and no other.
"""

import csv
import difflib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from activedpo_cli.base.columns import is_blank
from activedpo_cli.base.delimited import FORMULA, GUARDED
from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.records import Asked, Label, Outcome, prompt_as_text
from activedpo_cli.base.table_numbers import TRUTHS, as_number, mend_of_number
from activedpo_cli.base.tables import check_file, named_lines, parse_table
from activedpo_cli.engine.step import Context
from activedpo_cli.label.questions import Question
from activedpo_cli.label.queue import shown_sides
from activedpo_cli.label.standing import Standing
from activedpo_cli.oracles.base import Comparison
from activedpo_cli.store.files import write_bytes
from activedpo_cli.store.label_log import LabelLog

OUTCOMES: dict[str, Outcome] = {"a": "chosen", "b": "chosen", "tie": "tie", "both_bad": "both_bad", "skip": "skip"}
REQUIRED = ("pair_id", "preference", "response_a_id", "response_b_id")
PROBLEMS_SHOWN = 10
COLUMNS = (*REQUIRED, "prompt", "response_a", "response_b", "annotator", "seconds", "notes")

Row = Mapping[str, Any]


def import_file(context: Context, path: Path, asked: Sequence[Question], log: LabelLog) -> None:
    """Take answers from a file; raises InvalidDataError where it can't be read or contradicts what stands.

    Another person's answer to a pair that has one already is no contradiction: it is kept beside the first, to measure by.
    """
    options, oracle = context.execution.options, context.settings.label.oracle
    data = _content(path)
    answers = import_answers(data, path.name, _comparisons(asked), oracle=oracle, annotator=options.get("annotator"))
    standing = log.answers()
    differing = differing_answers(answers, standing)
    if differing:
        count = counted(len(differing), "pair")
        raise InvalidDataError(
            f"`{path}` answers {count} otherwise than before",
            details=differing,
            hint="remove these rows from the file; or, to ask all again, keeping what was answered in "
            f"`{context.run.stale}`: `{context.anew('label', '--ask-again', '--import', str(path))}`",
        )
    new = new_answers(answers, standing, asked)
    log.append(*new)
    context.progress.note(f"{counted(len(new), 'new answer')} from `{path}`")
    if waiting := _without_preference(data, path.name):
        rows = "1 row has" if len(waiting) == 1 else f"{len(waiting)} rows have"
        context.progress.note(f"{rows} no preference yet ({named_lines(waiting)})")


def read_answers(
    path: Path, asked: Sequence[Question], *, oracle: str = "human", annotator: str | None = None
) -> list[Label]:
    """The labels in a file, as `import_answers` finds them; raises InvalidDataError where it can't be read."""
    return import_answers(_content(path), path.name, _comparisons(asked), oracle=oracle, annotator=annotator)


def read_questions(path: Path, asked: Sequence[Question]) -> list[str]:
    """The pairs that a file asks about, answered or not; raises InvalidDataError where it asks anything else."""
    data = _content(path)
    import_answers(data, path.name, _comparisons(asked))
    return [row["pair_id"] for _, row in parse_rows(data, path.name)]


def differing_answers(answers: Sequence[Label], standing: Sequence[Label]) -> list[str]:
    """A line for each pair to which the same person answered otherwise before; the first few, and how many more.

    An answer without a name may be anybody's, and so may what it is compared with.
    """
    lines = []
    for label in answers:
        earlier = _same_persons(label, standing)
        if earlier and _says(earlier) != _says(label):
            lines.append(f"pair `{label.pair_id}`: {_in_words(earlier)} → {_in_words(label)}")
    return first_few(lines)


def new_answers(answers: Sequence[Label], standing: Sequence[Label], asked: Sequence[Question]) -> list[Label]:
    """Those that nobody of the same name gave before, as what they count: a further person's measures agreement."""
    questions = {question.comparison.pair_id: question for question in asked}
    answered = {label.pair_id for label in standing}
    return [
        replace(label, role=question.role_of_answer(label.pair_id in answered), known_id=question.known_id)
        for label in answers
        if _same_persons(label, standing) is None
        for question in (questions[label.pair_id],)
    ]


def _comparisons(asked: Sequence[Question]) -> list[Comparison]:
    return [question.comparison for question in asked]


def _same_persons(label: Label, standing: Sequence[Label]) -> Label | None:
    """What the person of an answer said of its pair before."""
    return next(
        (
            earlier
            for earlier in standing
            if earlier.pair_id == label.pair_id
            and earlier.role != "repeat"
            and (label.annotator is None or earlier.annotator in (None, label.annotator))
        ),
        None,
    )


def first_few(lines: Sequence[str]) -> list[str]:
    """As many lines as can be read at once, and how many more there are."""
    more = [f"… and {len(lines) - PROBLEMS_SHOWN} more"] if len(lines) > PROBLEMS_SHOWN else []
    return [*lines[:PROBLEMS_SHOWN], *more]


def _content(path: Path) -> bytes:
    check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidDataError(f"`{path}` can't be read: {error.strerror}") from error


def export_file(context: Context, path: Path, asked: Sequence[Question], log: LabelLog) -> None:
    """Write the pairs that wait for an answer to a file; raises UsageError where another one has its name."""
    annotator = context.execution.options.get("annotator") or ""
    standing = Standing(log.answers(), third_decides=context.settings.label.settle == "third")
    pending = [
        question.comparison
        for question in asked
        if (standing.missing(question) or (question.is_for_everybody and annotator))
        and Asked(question.comparison.pair_id, annotator) not in standing
    ]
    content = export_pairs(pending, path.name, annotator=annotator, seed=context.settings.seed)
    if not path.exists():
        write_bytes(path, content)
        said = f"{counted(len(pending), 'pair')} written to `{path}`"
    elif path.is_file() and path.read_bytes() == content:
        said = f"`{path}` is there already, with the {counted(len(pending), 'pair')} still without an answer"
    else:
        raise UsageError(
            f"`{path}` exists, and somebody's answers may be in it",
            hint=f"choose another file name; or read its answers: `{context.command('label', '--import', str(path))}`",
        )
    context.progress.note(
        f"{said}; fill in the column `preference` with a, b, tie, both_bad or skip, "
        f"then `{context.command('label', '--import', str(path))}`"
    )


def export_pairs(comparisons: Sequence[Comparison], name: str, *, annotator: str = "", seed: int) -> bytes:
    """The content of the file `name` (`.jsonl` or `.csv`) that asks about `comparisons`."""
    return render_rows([_row(comparison, annotator, seed) for comparison in comparisons], name)


def import_answers(
    data: bytes, name: str, comparisons: Sequence[Comparison], *, oracle: str = "human", annotator: str | None = None
) -> list[Label]:
    """The labels in a file made by `export_pairs` and filled in since; rows without a preference are left out.

    `preference` is a, b, tie, both_bad or skip, in any case. Rows that repeat an answer count once. `annotator` is who
    answered where a row does not say.

    Raises:
        InvalidDataError: With the line of each problem: a column is missing, a preference or a pair is unknown, a
            number is malformed, one pair has two answers, or the texts are not those of the pair, so that the row
            answers another question.

    """
    known = {comparison.pair_id: comparison for comparison in comparisons}
    answers: dict[str, tuple[int, Label]] = {}
    problems: list[str] = []
    for line, row in parse_rows(data, name):
        _require_columns(line, row, name)
        try:
            label = _answer(row, known, oracle, annotator)
        except ValueError as problem:
            problems.append(f"line {line}: {problem}")
            continue
        if label is None:
            continue
        first_line, first = answers.setdefault(label.pair_id, (line, label))
        if _says(first) != _says(label):
            problems.append(f"line {line}: pair `{label.pair_id}` has another answer in line {first_line}")
    if problems:
        count = counted(len(problems), "problem")
        raise InvalidDataError(f"`{name}` has {count}", details=first_few(problems))
    return [label for _, label in answers.values()]


def _without_preference(data: bytes, name: str) -> list[int]:
    return [line for line, row in parse_rows(data, name) if _preference(row) is None]


def _says(label: Label) -> tuple[Outcome, str | None]:
    return label.outcome, label.preferred_id


def _in_words(label: Label) -> str:
    return label.preferred_id or label.outcome


def _row(comparison: Comparison, annotator: str, seed: int) -> dict[str, Any]:
    first, second = shown_sides(comparison, annotator, seed)
    return {
        "pair_id": comparison.pair_id,
        "prompt": prompt_as_text(comparison.prompt),
        "response_a": first.text,
        "response_b": second.text,
        "preference": "",
        "annotator": annotator,
        "seconds": None,
        "notes": "",
        "response_a_id": first.response_id,
        "response_b_id": second.response_id,
    }


def _require_columns(line: int, row: Mapping[str, Any], name: str) -> None:
    missing = [column for column in REQUIRED if column not in row]
    if missing:
        raise InvalidDataError(
            f"`{name}` line {line} lacks {', '.join(f'`{column}`' for column in missing)}",
            details=[f"columns there: {', '.join(row)}"],
        )


def _answer(
    row: Mapping[str, Any], known: Mapping[str, Comparison], oracle: str, annotator: str | None
) -> Label | None:
    """The label in a row, None without one; raises ValueError with what is wrong."""
    comparison = known.get(_text(row, "pair_id") or "")
    if comparison is None:
        raise ValueError(f"pair `{row['pair_id']}` is not one of those to be labelled")
    _require_same_question(row, comparison)
    preference = _preference(row)
    if preference is None:
        return None
    return Label(
        pair_id=comparison.pair_id,
        outcome=OUTCOMES[preference],
        preferred_id=_text(row, f"response_{preference}_id") if preference in ("a", "b") else None,
        oracle=oracle,
        annotator=_text(row, "annotator") or annotator,
        seconds=_seconds(row),
        note=_text(row, "notes"),
        texts=comparison.texts,
        first_id=_text(row, "response_a_id"),
        channel="file",
    )


def _require_same_question(row: Mapping[str, Any], comparison: Comparison) -> None:
    texts = {response.response_id: response.text for response in (comparison.response_a, comparison.response_b)}
    ids = [_text(row, column) or "" for column in ("response_a_id", "response_b_id")]
    if set(ids) != set(texts):
        raise ValueError(f"{ids[0]} and {ids[1]} are not the responses of pair `{comparison.pair_id}`")
    stored = {
        "prompt": prompt_as_text(comparison.prompt),
        "response_a": texts[ids[0]],
        "response_b": texts[ids[1]],
    }
    for column, text in stored.items():
        given = _text(row, column) or ""
        if column in row and _comparable(text) not in (_comparable(given), _comparable(_without_lost_guard(given))):
            raise ValueError(
                f"the {column} of pair `{comparison.pair_id}` is not the stored text, so it answers another question"
            )


def _without_lost_guard(text: str) -> str:
    """The text without the apostrophe of an export whose column `guarded` somebody took out."""
    return text[1:] if text.startswith("'") and FORMULA.match(text[1:]) else text


def _comparable(text: str) -> str:
    """What is left of a text when it went through a spreadsheet."""
    return without_surrogates(text).replace("\r\n", "\n").replace("\r", "\n")


def _preference(row: Mapping[str, Any]) -> str | None:
    given = (_text(row, "preference") or "").strip()
    if not given:
        return None
    value = given.lower().replace("-", "_").replace(" ", "_")
    if value not in OUTCOMES:
        close = difflib.get_close_matches(value, OUTCOMES, n=1)
        meant = f" — did you mean `{close[0]}`?" if close else f", which is none of {', '.join(OUTCOMES)}"
        raise ValueError(f"the preference is `{given[:40]}`{meant}")
    return value


def _seconds(row: Mapping[str, Any]) -> float | None:
    given = row.get("seconds")
    if is_blank(given):
        return None
    seconds = None if str(given).strip().lower() in TRUTHS else as_number(given)
    if seconds is None or seconds < 0:
        raise ValueError(f"seconds is `{given}`, not a number of seconds{mend_of_number(given)}")
    return seconds


def _text(row: Mapping[str, Any], column: str) -> str | None:
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"`{column}` is no text")
    return value or None


def render_rows(rows: Sequence[Row], name: str) -> bytes:
    """The rows as the file `name` should hold them; every row has the same columns."""
    return {"jsonl": render_jsonl, "csv": render_csv}[_format(name)](rows)


def parse_rows(data: bytes, name: str) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a file, each with the line on which it begins; raises InvalidDataError as `parse_table` does."""
    return [(row.line, row.values) for row in parse_table(data, name, COLUMNS)]


def render_jsonl(rows: Sequence[Row]) -> bytes:
    """One JSON object per line, ASCII only, so that any text survives any tool."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def render_csv(rows: Sequence[Row]) -> bytes:
    """Guarded CSV in UTF-8 with the byte-order mark by which spreadsheets know it; lone surrogates become U+FFFD."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    if rows:
        writer.writerow([*rows[0], GUARDED])
    for row in rows:
        cells = {column: "" if value is None else str(value) for column, value in row.items()}
        guarded = [column for column, cell in cells.items() if FORMULA.match(cell)]
        for column in guarded:
            cells[column] = "'" + cells[column]
        writer.writerow([*cells.values(), " ".join(guarded)])
    return without_surrogates(stream.getvalue()).encode("utf-8-sig")


def without_surrogates(text: str) -> str:
    """`text` as UTF-8 can carry it: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _format(name: str) -> str:
    suffix = name.rpartition(".")[2].lower()
    if suffix not in ("jsonl", "csv"):
        raise UsageError(f"`{name}` ends neither in .jsonl nor in .csv", hint="the suffix decides the format")
    return suffix
