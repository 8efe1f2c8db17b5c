"""Label Studio: tasks and a labelling configuration, and its full JSON export back.

The configuration asks by `Choices`, which has keys and can say a tie; answers to a `Pairwise` are read too. A cancelled
annotation skips the pair unless the same person answered it in another one, one without a result still waits, and several
annotations are several people's. JSON_MIN and CSV are refused: they leave out what was skipped. No predictions are written,
since they would sway.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.tables import Row as TableRow
from activedpo_cli.label.formats.base import FoundAnswer, Row, part, without_withdrawn_skips

SUFFIX = ".json"
UNIT = "task"
RETURN = (
    "set a project up with the `.xml` beside it as its labelling interface, import the tasks, label, and export as JSON "
    "(not JSON_MIN)"
)
KEYS = {
    "pair_id": "pair_id",
    "prompt": "prompt",
    "response_a": "answer1",
    "response_b": "answer2",
    "response_a_id": "answer1_id",
    "response_b_id": "answer2_id",
}
"""Our columns, and what a task calls them."""
SIDES = {"left": "a", "right": "b"}
ASKED = "preference"
"""The name of the control in the configuration."""
CONFIGURATION = """\
<View>
  <Text name="prompt" value="$prompt"/>
  <Text name="answer1" value="$answer1"/>
  <Text name="answer2" value="$answer2"/>
  <Choices name="preference" toName="prompt" choice="single" required="true" showInLine="true">
    <Choice value="left" hotkey="1"/>
    <Choice value="right" hotkey="2"/>
    <Choice value="tie" hotkey="t"/>
    <Choice value="both_bad" hotkey="b"/>
  </Choices>
</View>
"""


def render(rows: Sequence[Row], path: Path, title: str) -> dict[Path, bytes]:
    """The tasks, and beside them the configuration."""
    tasks = [{"data": {theirs: row[ours] for ours, theirs in KEYS.items()}} for row in rows]
    return {path.with_suffix(".xml"): CONFIGURATION.encode(), path: json.dumps(tasks, indent=1).encode() + b"\n"}


def recognises(values: dict[str, Any]) -> bool:
    """A task has annotations or data; JSON_MIN and CSV, which are refused later, name the annotation."""
    return "annotations" in values or isinstance(values.get("data"), dict) or "annotation_id" in values


def answers(table: Iterable[TableRow]) -> Iterator[FoundAnswer]:
    """One of each annotation; of a task without any one that waits."""
    for row in table:
        shown = _shown(row)
        annotations = part(row.values.get("annotations") or [], list, "annotations", row.origin)
        if not annotations:
            yield FoundAnswer(row.line, f"task {row.line}", {**shown, "preference": ""})
        found = []
        for annotation in annotations:
            part(annotation, dict, "an annotation", row.origin)
            which = f"annotation {str(annotation.get('id'))[:20]}"
            given = _given(annotation, f"{row.origin}, {which}")
            place = f"task {row.line}, {which}"
            found.append(FoundAnswer(row.line, place, {**shown, **given}, _time(annotation.get("created_at"))))
        yield from without_withdrawn_skips(found)


def _shown(row: TableRow) -> dict[str, Any]:
    data = row.values.get("data")
    if not isinstance(data, dict):
        raise InvalidDataError(
            f"{row.origin} is no task of Label Studio's full JSON export",
            details=["JSON_MIN and CSV leave out what was skipped, and who answered what where several did"],
            hint="export the project as JSON",
        )
    missing = [key for key in KEYS.values() if key.endswith("id") and key not in data]
    if missing:
        raise InvalidDataError(
            f"{row.origin} lacks {', '.join(f'`{key}`' for key in missing)} in its data",
            hint="only tasks that `label --export` wrote can be read: ids say which response is which",
        )
    return {ours: data[theirs] for ours, theirs in KEYS.items() if theirs in data}


def _given(annotation: dict[str, Any], origin: str) -> dict[str, Any]:
    results = part(annotation.get("result") or [], list, "`result`", origin)
    parts = [part(result, dict, "a result", origin) for result in results]
    named = [result for result in parts if result.get("from_name") == ASKED]
    said = {word for result in named or parts for word in _words(result, origin)}
    if len(said) > 1:
        raise InvalidDataError(f"{origin} says {' and '.join(f'`{word[:40]}`' for word in sorted(said))}")
    word = "skip" if annotation.get("was_cancelled") is True else next(iter(said), "")
    return {
        "preference": SIDES.get(word, word),
        "annotator": _person(annotation.get("completed_by"), origin),
        "seconds": annotation.get("lead_time"),
        "notes": "\n".join(text for result in parts for text in _notes(result)),
    }


def _words(result: dict[str, Any], origin: str) -> list[str]:
    """What a result says of the pair; those of other controls, such as a text, say nothing of it."""
    kind = result.get("type")
    if kind not in ("choices", "pairwise"):
        return []
    value = part(result.get("value"), dict, "the value of a result", origin)
    words = value.get("choices") if kind == "choices" else [value.get("selected")]
    return [part(word, str, "a choice", origin) for word in part(words, list, "the choices of a result", origin)]


def _notes(result: dict[str, Any]) -> list[str]:
    value = result.get("value")
    texts = value.get("text") if result.get("type") == "textarea" and isinstance(value, dict) else None
    return [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []


def _person(value: Any, origin: str) -> str | None:
    """Who annotated: a number, or in some exports an object with an address."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("username") or value.get("id")
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return None if value is None else str(value)
    raise InvalidDataError(f"{origin}: `completed_by` names nobody")


def _time(value: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
