"""Let people answer through a file that is written now and read back later."""

from dataclasses import replace
from pathlib import Path

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.engine.step import Context
from activedpo_cli.label.exchange import export_pairs, import_answers, label_from_answer
from activedpo_cli.oracles.base import Comparison
from activedpo_cli.store.files import write_bytes
from activedpo_cli.store.label_log import LabelLog


def import_file(context: Context, path: Path, comparisons: list[Comparison], log: LabelLog) -> None:
    """Take answers from a file, unless they contradict what stands; raises InvalidDataError then."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidDataError(f"`{path}` can't be read: {error.strerror}") from error
    standing = log.labels()
    annotator = context.execution.options.get("annotator")
    answers = [
        label_from_answer(answer, context.config.label.oracle)
        for answer in import_answers(data, path.name, comparisons)
    ]
    texts = {comparison.pair_id: comparison.texts for comparison in comparisons}
    answers = [replace(label, annotator=label.annotator or annotator, texts=texts[label.pair_id]) for label in answers]
    clashing = [
        label.pair_id
        for label in answers
        if label.pair_id in standing
        and (standing[label.pair_id].outcome, standing[label.pair_id].preferred_id)
        != (label.outcome, label.preferred_id)
    ]
    if clashing:
        raise InvalidDataError(
            f"`{path}` answers {len(clashing)} pairs otherwise than before, first `{clashing[0]}`",
            hint="take an answer back in a session (`u`), or remove its row from the file",
        )
    new = [label for label in answers if label.pair_id not in standing]
    log.append(*new)
    context.progress.note(f"{len(new)} new answers from `{path}`")


def export_file(context: Context, path: Path, comparisons: list[Comparison], log: LabelLog) -> None:
    """Write the pairs that wait for an answer to a file; raises UsageError where there is one of that name."""
    if path.exists():
        raise UsageError(f"`{path}` exists, and somebody's answers may be in it", hint="choose another file name")
    standing = log.labels()
    pending = [comparison for comparison in comparisons if comparison.pair_id not in standing]
    annotator = context.execution.options.get("annotator") or ""
    write_bytes(path, export_pairs(pending, path.name, annotator=annotator, seed=context.config.seed))
    context.progress.note(
        f"{len(pending)} pairs written to `{path}`; fill in the column `preference` with a, b, tie, both_bad or skip, "
        f"then `{context.command('label')} --import {path}`"
    )
