"""What `label --export` writes of a closed stage, about which nobody is asked any more: the answers that stand."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.records import Label
from activedpo_cli.label.borrowed_names import under_borrowed_name
from activedpo_cli.label.exchange import TABLES, export_title, format_name_of, format_to_write, holds, question_row
from activedpo_cli.label.judging import is_of_judge
from activedpo_cli.label.questions import Question
from activedpo_cli.store.files import write_bytes
from activedpo_cli.store.run import Run


def export_answers(
    run: Run, iteration: int, asked: Sequence[Question], seed: int, path: Path, options: Mapping[str, Any]
) -> str:
    """Write what people answered, those pairs too that were left without an answer; returns what there is to say.

    A table has a row for each answer, filled in as it would come back. Other formats have no place for answers, and get the
    pairs without one. With an annotator, the answers of others are left out.

    Raises UsageError where the name fits no format, or something else has it.
    """
    chosen, annotator = format_to_write(path.name, options.get("format")), options.get("annotator")
    answers = run.stage("label", iteration).label_log().answers()
    rows = [row for question in asked for row in _rows(question, answers, annotator, seed)]
    waiting = [row for row in rows if not row["preference"]]
    is_table = format_name_of(chosen) in TABLES
    files = chosen.render(rows if is_table else waiting, path, export_title(run, iteration, annotator))
    others = [place for place, content in files.items() if not holds(place, content)]
    taken = next((place for place in others if place.exists()), None)
    if taken is not None:
        raise UsageError(f"`{taken}` exists, and somebody's answers may be in it", hint="choose another file name")
    for place in others:
        write_bytes(place, files[place])
    told = [counted(len(rows) - len(waiting), "answer")] if is_table else []
    told += [f"{counted(len(waiting), 'pair')} without one"] if waiting or not told else []
    where = f"written to `{path}`" if others else f"in `{path}`, which is there already"
    return f"{' and '.join(told)} {where}: the stage is closed"


def answers_to_export(run: Run, iteration: int, annotator: str | None) -> list[Label]:
    """What people answered, without what they were asked again; with an annotator, what these answered."""
    answers = run.stage("label", iteration).label_log().answers()
    return [label for label in answers if _is_exported(label, annotator)]


def _is_exported(label: Label, annotator: str | None) -> bool:
    return label.role != "repeat" and not is_of_judge(label) and annotator in (None, label.annotator)


def _rows(question: Question, answers: Sequence[Label], annotator: str | None, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each answer of a person to a pair, or one without, where nobody, nor a judge, has answered it."""
    comparison = question.comparison
    given = [label for label in answers if label.pair_id == comparison.pair_id and label.role != "repeat"]
    for label in given:
        if _is_exported(label, annotator):
            row = question_row(comparison, label.annotator or "", seed)
            is_first = label.preferred_id == row["response_a_id"]
            said = ("a" if is_first else "b") if label.outcome == "chosen" else label.outcome
            filled = row | {"preference": said, "seconds": label.seconds, "notes": label.note or ""}
            yield under_borrowed_name(filled, comparison, question.name_in_files)
    if not given:
        row = question_row(comparison, annotator or "", seed)
        yield under_borrowed_name(row, comparison, question.name_in_files)
