"""Argilla 2: a folder for `rg.Dataset.from_disk`, and records flattened to JSON back.

The folder is written here, since the library builds settings only with a server at hand. It asks one question, so that one
key submits. Back come the records of `to_list(flatten=True)`, in which each answer has its status: one that was discarded
skips the pair, a draft still waits. `to_json` leaves the status out, and a discarded answer then looks like a vote: such a
file is refused, but for records that are complete by the one answer they have.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.tables import Row as TableRow
from activedpo_cli.label.formats.base import OUTCOMES, FoundAnswer, Row, part

SUFFIX = ""
UNIT = "record"
RECORDS = "records.json"
"""The file of a folder that holds its records."""
RETURN = (
    'load it with `rg.Dataset.from_disk(FOLDER, workspace="NAME")`, label, and save '
    "`ds.records(with_responses=True).to_list(flatten=True)` as JSON"
)
QUESTION = "preference"
RESPONSES, USERS, STATUS = (f"{QUESTION}.responses{end}" for end in ("", ".users", ".status"))
FIELDS = {"prompt": "Prompt", "response_a": "Response A", "response_b": "Response B"}
IDS = ("pair_id", "response_a_id", "response_b_id")
OPTIONS = {"a": "A is better", "b": "B is better", "tie": "Tie", "both_bad": "Both bad"}
FLAT = "save `json.dump(ds.records(with_responses=True).to_list(flatten=True), file)` instead"


def render(rows: Sequence[Row], path: Path, title: str) -> dict[Path, bytes]:
    """The three files of a folder; the data set is called as the title says, in the letters that Argilla takes."""
    name = re.sub(r"[^a-zA-Z0-9_ -]", "-", title).lstrip("-_ ")[:200] or "pairs"
    shared = {"guidelines": None, "allow_extra_metadata": False}
    distribution = {"strategy": "overlap", "min_submitted": 1}
    files: dict[str, Any] = {
        ".argilla/settings.json": {**shared, "distribution": distribution, **_settings()},
        ".argilla/dataset.json": {"name": name, "status": "draft", **shared, "distribution": distribution},
        RECORDS: [_record(row) for row in rows],
    }
    return {path / name: json.dumps(value, indent=1).encode() + b"\n" for name, value in files.items()}


def _settings() -> dict[str, Any]:
    text = {"type": "text", "use_markdown": False}
    options = [{"value": value, "text": label} for value, label in OPTIONS.items()]
    question = {"type": "label_selection", "options": options, "visible_options": len(options)}
    hidden = {"visible_for_annotators": False}
    return {
        "fields": [
            {"name": name, "title": label, "required": True, "settings": text} for name, label in FIELDS.items()
        ],
        "questions": [{"name": QUESTION, "title": "Which response is better?", "required": True, "settings": question}],
        "metadata": [
            {"name": name, "title": name, "type": "terms", "settings": {"type": "terms", **hidden}, **hidden}
            for name in IDS
        ],
        "vectors": [],
    }


def _record(row: Row) -> dict[str, Any]:
    return {
        "id": row["pair_id"],
        "fields": {name: row[name] for name in FIELDS},
        "metadata": {name: row[name] for name in IDS},
        "suggestions": {},
        "responses": {},
        "vectors": {},
    }


def recognises(values: dict[str, Any]) -> bool:
    """A record has fields, or the number that the server gave it, or answers to the question."""
    return isinstance(values.get("fields"), dict) or "_server_id" in values or RESPONSES in values


def answers(table: Iterable[TableRow]) -> Iterator[FoundAnswer]:
    """One of each person's answer; of a record without any one that waits."""
    for row in table:
        is_nested = isinstance(row.values.get("fields"), dict)
        shown = _shown(row, is_nested)
        given = _nested_answers(row) if is_nested else _flat_answers(row)
        for preference, annotator in given or [("", None)]:
            place = f"record {row.line}"
            yield FoundAnswer(row.line, place, {**shown, "preference": preference, "annotator": annotator})


def _shown(row: TableRow, is_nested: bool) -> dict[str, Any]:
    values = row.values
    if is_nested:
        values = {**values["fields"], **part(values.get("metadata") or {}, dict, "metadata", row.origin)}
    missing = [name for name in IDS if values.get(name) is None]
    if missing:
        raise InvalidDataError(
            f"{row.origin} lacks {', '.join(f'`{name}`' for name in missing)}",
            hint="only records that `label --export` wrote can be read: ids say which response is which",
        )
    return {name: values[name] for name in (*IDS, *FIELDS) if name in values}


def _flat_answers(row: TableRow) -> list[tuple[str, str | None]]:
    said, users, states = (row.values.get(name) or [] for name in (RESPONSES, USERS, STATUS))
    for value, name in ((said, RESPONSES), (users, USERS), (states, STATUS)):
        part(value, list, f"`{name}`", row.origin)
    if not len(said) == len(users) == len(states):
        raise InvalidDataError(
            f"{row.origin} does not say of each answer by whom it is and what became of it", hint=FLAT
        )
    return [
        (_preference(value, state, row.origin), part(user, str, f"`{USERS}`", row.origin))
        for value, user, state in zip(said, users, states, strict=True)
    ]


def _preference(value: Any, state: Any, origin: str) -> str:
    if state == "discarded":
        return "skip"
    if state in ("draft", "pending"):
        return ""
    if state != "submitted":
        raise InvalidDataError(f"{origin}: an answer is `{str(state)[:40]}`, not submitted, discarded or draft")
    return _known(value, origin)


def _known(value: Any, origin: str) -> str:
    word = part(value, str, "an answer", origin)
    if word not in OUTCOMES:
        raise InvalidDataError(f"{origin}: the answer `{word[:40]}` is none of {', '.join(OPTIONS)}")
    return word


def _nested_answers(row: TableRow) -> list[tuple[str, str | None]]:
    """The answer of a record that has one, and is complete by it; any other may have been discarded."""
    by_question = part(row.values.get("responses") or {}, dict, "responses", row.origin)
    given = part(by_question.get(QUESTION) or [], list, f"the answers to `{QUESTION}`", row.origin)
    if not given:
        return []
    if len(given) > 1 or row.values.get("status") != "completed":
        raise InvalidDataError(
            f"{row.origin} has {counted(len(given), 'answer')}, and does not say which were discarded",
            details=["`to_json` and `to_disk` leave that out, and a discarded answer looks like a vote"],
            hint=FLAT,
        )
    answer = part(given[0], dict, "an answer", row.origin)
    user = answer.get("user_id")
    return [(_known(answer.get("value"), row.origin), None if user is None else str(user))]
