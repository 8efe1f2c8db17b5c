"""Prodigy: tasks for its view `choice`, and the JSON Lines of `db-out` back.

`ignore` skips the pair unless the same person answered it as well; a rejected task, or one with no choice or several, still
waits. Who answered is the session.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.tables import Row as TableRow
from activedpo_cli.label.formats.base import FoundAnswer, Row, part, without_withdrawn_skips

SUFFIX = ".jsonl"
UNIT = "task"
RETURN = "label with `prodigy mark DATASET FILE --view-id choice`, save with `prodigy db-out DATASET > ANSWERS.jsonl`"
BESIDE = {"tie": "Tie", "both_bad": "Both bad"}
"""The options that are no responses."""


def render(rows: Sequence[Row], path: Path, title: str) -> dict[Path, bytes]:
    """One task a line, its options in the order in which they are shown; the key `html` is never written."""
    return {path: "".join(json.dumps(_task(row)) + "\n" for row in rows).encode()}


def _task(row: Row) -> dict[str, Any]:
    shown = [{"id": row[f"response_{side}_id"], "text": row[f"response_{side}"]} for side in "ab"]
    others = [{"id": name, "text": text} for name, text in BESIDE.items()]
    return {"text": row["prompt"], "pair_id": row["pair_id"], "options": [*shown, *others]}


def recognises(values: dict[str, Any]) -> bool:
    """A task has options to choose among."""
    return isinstance(values.get("options"), list)


def answers(table: Iterable[TableRow]) -> Iterator[FoundAnswer]:
    """One of each task, as often as it was answered."""
    found = [
        FoundAnswer(row.line, f"task {row.line}", _values(row), _time(row.values.get("_timestamp"))) for row in table
    ]
    return without_withdrawn_skips(found)


def _values(row: TableRow) -> dict[str, Any]:
    task, origin = row.values, row.origin
    if "pair_id" not in task:
        raise InvalidDataError(f"{origin} has no `pair_id`", hint="only tasks that `label --export` wrote can be read")
    options = [part(option, dict, "an option", origin) for option in part(task.get("options"), list, "options", origin)]
    texts = {
        part(option.get("id"), str, "the id of an option", origin): option.get("text")
        for option in options
        if option.get("id") not in list(BESIDE)
    }
    if len(texts) != 2:
        raise InvalidDataError(f"{origin} offers {counted(len(texts), 'response')}, not two")
    ids = list(texts)
    return {
        "pair_id": task["pair_id"],
        "prompt": part(task.get("text"), str, "the text", origin),
        "response_a_id": ids[0],
        "response_b_id": ids[1],
        "response_a": texts[ids[0]],
        "response_b": texts[ids[1]],
        "preference": _preference(task, ids, origin),
        "annotator": task.get("_session_id") or task.get("_annotator_id"),
    }


def _preference(task: dict[str, Any], ids: list[str], origin: str) -> str:
    """One of the five words, or none where nothing was accepted that says one thing."""
    answer = task.get("answer")
    if answer == "ignore":
        return "skip"
    if answer not in (None, "accept", "reject"):
        raise InvalidDataError(f"{origin}: the answer is `{str(answer)[:40]}`, not accept, reject or ignore")
    accepted = part(task.get("accept") or [], list, "`accept`", origin)
    if answer != "accept" or len(accepted) != 1:
        return ""
    words = dict(zip([*ids, *BESIDE], ["a", "b", *BESIDE], strict=True))
    word = part(accepted[0], str, "what is accepted", origin)
    if word not in words:
        raise InvalidDataError(f"{origin} accepts `{word[:40]}`, which is none of its options")
    return words[word]


def _time(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e18 and math.isfinite(value) else None
