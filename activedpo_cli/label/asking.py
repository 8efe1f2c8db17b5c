"""Let people answer: at the terminal, or through a file that is written now and read back later."""

import getpass
import sys
import time
from dataclasses import replace
from pathlib import Path

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.engine.step import Context
from activedpo_cli.label.exchange import export_pairs, import_answers, label_from_answer
from activedpo_cli.label.human import Desk, label_session
from activedpo_cli.oracles.base import Comparison
from activedpo_cli.store.files import write_bytes
from activedpo_cli.store.label_log import LabelLog


def ask_people(context: Context, comparisons: list[Comparison], log: LabelLog) -> None:
    """Import answers, export questions, or hold a session at the terminal, as the options say."""
    options = context.execution.options
    if options.get("import"):
        _import(context, Path(options["import"]), comparisons, log)
    elif options.get("export"):
        _export(context, Path(options["export"]), comparisons, log)
    elif not options.get("accept_partial"):
        _session(context, comparisons, log)


def _import(context: Context, path: Path, comparisons: list[Comparison], log: LabelLog) -> None:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidDataError(f"`{path}` can't be read: {error.strerror}") from error
    standing = log.labels()
    annotator = context.execution.options.get("annotator")
    answers = [label_from_answer(answer) for answer in import_answers(data, path.name, comparisons)]
    answers = [replace(label, annotator=label.annotator or annotator) for label in answers]
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
    for label in new:
        log.append(label)
    context.progress.note(f"{len(new)} new answers from `{path}`")


def _export(context: Context, path: Path, comparisons: list[Comparison], log: LabelLog) -> None:
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


def _session(context: Context, comparisons: list[Comparison], log: LabelLog) -> None:
    options = context.execution.options
    guidelines = options.get("guidelines")

    def read_line() -> str | None:
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    with context.progress.handed_over():
        label_session(
            comparisons,
            log.labels(),
            annotator=options.get("annotator") or _user(),
            seed=context.config.seed,
            desk=Desk(read_line=read_line, write=write, record=log.append, retract=log.retract, clock=time.monotonic),
            guidelines=_text_of(Path(guidelines)) if guidelines else None,
        )


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDataError(f"the guidelines `{path}` can't be read: {error}") from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "annotator"
