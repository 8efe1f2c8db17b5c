"""What `label --import` or `--export` asks of a closed stage may have been done already: then there is nothing left to do.

A command that is typed again after it succeeded, or after it was killed when all but its last write was done, so ends as
well as it did before.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import RefusedError
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.step import Execution, again
from activedpo_cli.label.closed_export import answers_to_export, export_answers
from activedpo_cli.label.exchange import (
    Reading,
    differing_answers,
    first_few,
    new_answers,
    read_answers,
    words_of_import,
)
from activedpo_cli.label.questions import Question, questions_for_people
from activedpo_cli.oracles.base import asks_some_people
from activedpo_cli.store.run import Run


def is_done(run: Run, iteration: int, settings: Config, execution: Execution, progress: Progress) -> bool:
    """Whether a closed stage holds all that these options ask for; writes nothing but the file of an export.

    Args:
        run: The run.
        iteration: Its iteration, whose stage is closed.
        settings: What the stage was closed with.
        execution: What the command was told.
        progress: Hears what was found.

    Raises:
        InvalidDataError: The file can't be read, or does not ask about the pairs of this stage.
        RefusedError: The file answers pairs otherwise than what stands, or pairs that were left without an answer.
        UsageError: An export has a name that something else has, or that fits no format.

    """
    options = execution.options
    if options.get("ask-again") or not asks_some_people(settings.label.oracle):
        return False
    if options.get("import"):
        _require_that_answers_stand(run, iteration, settings, execution, progress)
        return True
    if options.get("export"):
        progress.note(_exported(run, iteration, settings, options))
        return True
    return False


def _exported(run: Run, iteration: int, settings: Config, options: Mapping[str, Any]) -> str:
    """What the file of an export holds, or now holds; raises InvalidDataError where it is about other pairs."""
    path, asked = Path(options["export"]), _asked(run, iteration, settings)
    if path.exists() and (found := read_answers(path, asked, Reading.of(options))).pair_ids:
        answers = answers_to_export(run, iteration, options.get("annotator"))
        lacking = len(new_answers(answers, found.labels, asked))
        told = f"; {counted(lacking, 'answer')} that stand{'s' * (lacking == 1)} would go to a file of another name"
        said = f"`{path}` is there already, with {len(found.pair_ids)} pairs of this stage, which is closed"
        return said + told * bool(lacking)
    return export_answers(run, iteration, asked, settings.seed, path, options)


def _asked(run: Run, iteration: int, settings: Config) -> list[Question]:
    return questions_for_people(run, iteration, settings.label, settings.seed)


def _require_that_answers_stand(
    run: Run, iteration: int, settings: Config, execution: Execution, progress: Progress
) -> None:
    path = Path(execution.options["import"])
    asked = _asked(run, iteration, settings)
    answers = read_answers(path, asked, Reading.of(execution.options)).labels
    standing = run.stage("label", iteration).label_log().answers()
    words = words_of_import(path, execution.options)
    taking_over = again(run, "label", iteration, execution, "--force", *words)
    _refuse(
        f"`label` of iteration {iteration} is closed, and `{path}` answers otherwise than what stands",
        differing_answers(answers, standing),
        f"remove these rows from the file; or, to ask again, keeping the old answers in `{run.stale}`: "
        f"`{taking_over} --ask-again`",
    )
    late = new_answers(answers, standing, asked)
    _refuse(
        f"`label` of iteration {iteration} was closed without answers that are in `{path}`",
        first_few([f"pair `{label.pair_id}`: {label.preferred_id or label.outcome}" for label in late]),
        f"to ask again, taking over what was answered: `{taking_over}`",
    )
    progress.note(f"all {len(answers)} answers of `{path}` are there already")


def _refuse(message: str, lines: list[str], hint: str) -> None:
    if lines:
        raise RefusedError(message, details=lines, hint=hint)
