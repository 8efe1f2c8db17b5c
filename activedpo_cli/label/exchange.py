"""Pairs out to a file that people fill in anywhere, and their answers back.

One row per pair: `pair_id, prompt, response_a, response_b, preference, annotator, seconds, notes`, and the ids of the
two responses, `response_a_id` and `response_b_id`. Sides are shuffled; answers are joined by ids, never by texts.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.records import Label, Outcome, prompt_as_text
from activedpo_cli.label.exchange_files import parse_rows, render_rows, without_surrogates
from activedpo_cli.label.queue import shown_sides
from activedpo_cli.oracles.base import Comparison

OUTCOMES: dict[str, Outcome] = {"a": "chosen", "b": "chosen", "tie": "tie", "both_bad": "both_bad", "skip": "skip"}
REQUIRED = ("pair_id", "preference", "response_a_id", "response_b_id")
PROBLEMS_SHOWN = 10


@dataclass(frozen=True)
class ImportedAnswer:
    """One answered row; `preferred_id` is set if and only if the outcome is `chosen`, `line` counts from 1."""

    pair_id: str
    outcome: Outcome
    preferred_id: str | None
    annotator: str | None
    seconds: float | None
    note: str | None
    line: int


def export_pairs(comparisons: Sequence[Comparison], name: str, *, annotator: str = "", seed: int) -> bytes:
    """The content of the file `name` (`.jsonl` or `.csv`) that asks about `comparisons`."""
    return render_rows([_row(comparison, annotator, seed) for comparison in comparisons], name)


def import_answers(data: bytes, name: str, comparisons: Sequence[Comparison]) -> list[ImportedAnswer]:
    """The answers in a file made by `export_pairs` and filled in since; rows without a preference are left out.

    `preference` is a, b, tie, both_bad or skip, in any case. Rows that repeat an answer count once.

    Raises:
        InvalidDataError: With the line of each problem: a column is missing, a preference or a pair is unknown, a
            number is malformed, one pair has two answers, or the texts are not those of the pair, so that the row
            answers another question.

    """
    known = {comparison.pair_id: comparison for comparison in comparisons}
    answers: dict[str, ImportedAnswer] = {}
    problems: list[str] = []
    for line, row in parse_rows(data, name):
        _require_columns(line, row, name)
        try:
            answer = _answer(line, row, known)
        except ValueError as problem:
            problems.append(f"line {line}: {problem}")
            continue
        if answer is None:
            continue
        first = answers.setdefault(answer.pair_id, answer)
        if (first.outcome, first.preferred_id) != (answer.outcome, answer.preferred_id):
            problems.append(f"line {line}: pair `{answer.pair_id}` has another answer in line {first.line}")
    if problems:
        more = [f"… and {len(problems) - PROBLEMS_SHOWN} more"] if len(problems) > PROBLEMS_SHOWN else []
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InvalidDataError(f"`{name}` has {count}", details=[*problems[:PROBLEMS_SHOWN], *more])
    return list(answers.values())


def label_from_answer(answer: ImportedAnswer, oracle: str) -> Label:
    """The label that an imported answer amounts to."""
    return Label(
        pair_id=answer.pair_id,
        outcome=answer.outcome,
        preferred_id=answer.preferred_id,
        oracle=oracle,
        annotator=answer.annotator,
        seconds=answer.seconds,
        note=answer.note,
    )


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


def _answer(line: int, row: Mapping[str, Any], known: Mapping[str, Comparison]) -> ImportedAnswer | None:
    """The answer in a row, None without one; raises ValueError with what is wrong."""
    comparison = known.get(_text(row, "pair_id") or "")
    if comparison is None:
        raise ValueError(f"pair `{row['pair_id']}` is not one of those to be labelled")
    _require_same_question(row, comparison)
    preference = _preference(row)
    if preference is None:
        return None
    return ImportedAnswer(
        pair_id=comparison.pair_id,
        outcome=OUTCOMES[preference],
        preferred_id=_text(row, f"response_{preference}_id") if preference in ("a", "b") else None,
        annotator=_text(row, "annotator"),
        seconds=_seconds(row),
        note=_text(row, "notes"),
        line=line,
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
        if column in row and _comparable(_text(row, column) or "") != _comparable(text):
            raise ValueError(
                f"the {column} of pair `{comparison.pair_id}` is not the stored text, so it answers another question"
            )


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
    if given is None or given == "":
        return None
    try:
        seconds = float(given)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"seconds is `{given}`, not a number of seconds")
    return seconds


def _text(row: Mapping[str, Any], column: str) -> str | None:
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"`{column}` is no text")
    return value or None
