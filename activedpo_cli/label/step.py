"""Stage 4: ask the oracle which response of each selected pair is better.

Every answer is appended to `labels.jsonl` and on the disk before anything else happens; the stage closes when every
selected pair has one. An interrupted stage goes on at the first pair without one. A stage that is made again takes over what
people answered before, and what a machine answered if other pairs are selected now.
"""

import getpass
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from activedpo_cli.base.columns import ARGUMENTS
from activedpo_cli.base.config import flat
from activedpo_cli.base.errors import InvalidDataError, LabelsPendingError, RefusedError, UsageError
from activedpo_cli.base.records import (
    SPENT_OUTCOMES,
    Label,
    OutcomeRow,
    Preference,
    PromptText,
    with_whole_answer,
)
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.base.settings import JUDGE_KEYS_BESIDE_WORK, Config, LabelSettings
from activedpo_cli.base.template_kwargs import as_arguments
from activedpo_cli.engine.differences import digest_of_known
from activedpo_cli.engine.step import Context, Stage, require
from activedpo_cli.engine.units import AtOnce, Work
from activedpo_cli.label import earlier_answers, judging
from activedpo_cli.label.already_done import is_done
from activedpo_cli.label.answering import Answering
from activedpo_cli.label.exchange import export_file, import_file
from activedpo_cli.label.fronts import front_of_terminal
from activedpo_cli.label.questions import Question, questions, questions_for_people, selected_questions
from activedpo_cli.label.queue import LEASE_SECONDS, Queue
from activedpo_cli.label.settlement import settled
from activedpo_cli.label.sittings import SharedAnswers, StageLeftError, refuse_while_people_answer, sitting
from activedpo_cli.label.standing import measuring_counts, missing_answers
from activedpo_cli.oracles.base import (
    Comparison,
    Oracle,
    asks_some_people,
    draws_answers,
    keeps_replies,
    open_oracle,
    oracle_identity,
    parse_spec,
)
from activedpo_cli.pairs.candidates import response_inputs
from activedpo_cli.store.label_log import TORN_NAMES, LabelLog
from activedpo_cli.store.manifest import Started
from activedpo_cli.store.reply_log import REPLIES_NAME
from activedpo_cli.store.run import Run

LARGEST_GUIDELINES = 2**20
"""Bytes; whatever is larger is not what somebody wrote for people to read."""
GOLD = "label.gold"
"""The setting that names the file of gold pairs, and the name of its content among the inputs."""


def settings(config: Config) -> dict[str, Any]:
    """What the answers depend on; of a judge's settings those that say what it is asked, where one is."""
    every = flat(config, "seed", "label")
    asked = judging.settings_of(config.label.oracle)
    return {key: value for key, value in every.items() if not key.startswith("label.judge.") or key in asked}


def inputs(run: Run, iteration: int, config: Config) -> dict[str, str]:
    """The selected pairs, their responses, and the oracle itself where it is a file or a model."""
    digests = {f"iter-{iteration:03d}/select": require(run, "select", iteration)} | response_inputs(run, iteration)
    return digests | oracle_inputs(config.label.oracle, config) | _gold_input(run, iteration, config)


def _gold_input(run: Run, iteration: int, config: Config) -> dict[str, str]:
    """What the gold pairs are, where people are asked about some: as recorded where the file of known work is gone."""
    gold = config.label.gold
    if gold is None or not asks_some_people(config.label.oracle):
        return {}
    return {GOLD: digest_of_known(_record(run, iteration), GOLD, GOLD, gold)}


def _record(run: Run, iteration: int) -> Started | None:
    """The record of a finished or begun stage; None where there is none, or it can't be read."""
    folder = run.stage("label", iteration)
    try:
        return folder.manifest or folder.started
    except InvalidDataError:
        return None


def oracle_inputs(spec: str, config: Config) -> dict[str, str]:
    """Digests that identify an oracle, by name."""
    return {f"oracle {spec} {key}": value for key, value in oracle_identity(spec, config.label).items()}


def check(context: Context) -> None:
    """Refuse to begin when a selected pair has no recorded answer, and to turn people's answers around."""
    oracle_setting = context.settings.label.oracle
    if context.settings.label.noise and asks_some_people(oracle_setting):
        raise UsageError(
            "label.noise turns answers around at random, which is not for answers of people", hint="--label-noise 0"
        )
    if keeps_replies(oracle_setting):
        judging.check(context)
    if asks_some_people(oracle_setting):
        if context.settings.label.gold is not None or context.settings.label.control:
            _questions(context)  # which may find a fault in the file, or in the answers to earlier pairs
        return
    refuse_beside(context.settings.label)
    if parse_spec(oracle_setting)[0] != "recorded":
        return
    oracle: Any = _open(context)
    uncovered = [
        comparison.pair_id for comparison in questions(context.run, context.iteration) if not oracle.covers(comparison)
    ]
    if uncovered:
        field = context.settings.label.score_field
        command = context.run.next_command("select", context.iteration)
        raise InvalidDataError(
            f"nothing is recorded about {len(uncovered)} of the selected pairs, first `{uncovered[0]}`",
            details=[f"the recorded oracle reads {f'the score `{field}`' if field else 'recorded preferences'}"],
            hint=f"select among the others: `{command} --force --oracle recorded"
            + (f" --score-field {field}`" if field else "`, or name a score with --score-field"),
        )


def refuse_beside(label: LabelSettings) -> None:
    """Raise UsageError where a machine is to be asked what is for people; one whose answers are drawn may draw again."""
    asked_beside = [name for name in ("overlap", "control", "repeat", "gold") if getattr(label, name)]
    if label.overlap and draws_answers(label):
        asked_beside.remove("overlap")
        if label.settle == "third":
            raise UsageError(
                "label.settle third asks a third person, and here answers are drawn",
                hint="`--set label.settle=majority`",
            )
    if not asked_beside:
        return
    without = " ".join(f"--set label.{name}={'null' if name == 'gold' else 0}" for name in asked_beside)
    is_certain = "overlap" in asked_beside and not keeps_replies(label.oracle)
    raise UsageError(
        f"people are to be asked something beside, and label.oracle is `{label.oracle}`",
        details=[f"label.{name} is {getattr(label, name)}" for name in asked_beside]
        + ([f"an overlap asks twice, and `{label.oracle}` gives the same answer each time"] if is_certain else []),
        hint=f"--oracle human, or `{without}`"
        + (", or answers at random: --answer bradley-terry, or --label-noise 0.1" if is_certain else ""),
    )


def open_work(context: Context) -> Work:
    """Buy the missing answers, then write down what stands; whatever can be called is asked by several processes."""
    if not is_called(context.settings):
        return AtOnce(lambda: work(context))
    _refuse_files(context)
    return Answering(context, lambda log: _prepared(context, log), lambda asked, log: _close(context, asked, log, None))


def is_called(config: Config) -> bool:
    """Whether the oracle answers whenever it is called, at no cost: a model, a function or a record."""
    return not asks_some_people(config.label.oracle) and not keeps_replies(config.label.oracle)


def is_for_this_process(config: Config) -> bool:
    """Whether people answer at this terminal, a judge is asked with a key of this environment, or answers are looked up."""
    return not is_called(config) or parse_spec(config.label.oracle)[0] == "recorded"


def work(context: Context) -> dict[str, Any]:
    """Ask a judge, people, or one after the other."""
    log = context.folder.label_log()
    asked = _prepared(context, log)
    oracle = context.settings.label.oracle
    if not asks_some_people(oracle):
        _refuse_files(context)
    stopped = None
    if keeps_replies(oracle) and not context.execution.options.get("accept_partial"):
        stopped = judging.ask(context, _selected(asked), log)  # no further where the stage is to be closed as it is
    if asks_some_people(oracle):
        _tell_of_fewer(context, asked)
        # A file may hold answers about pairs that the judge has answered since it was written.
        is_narrowed = keeps_replies(oracle) and not context.execution.options.get("import")
        _ask_people(context, _left_to_people(asked, log) if is_narrowed else asked, log)
        if context.folder.started is None:
            return _left(context)
    return _close(context, asked, log, stopped)


def _prepared(context: Context, log: LabelLog) -> list[Question]:
    """What is asked, after the log was mended and what was answered before was taken over."""
    torn = log.repair()
    if torn:
        context.progress.warn(f"cut {torn} bytes of an answer whose writing was interrupted before it was acknowledged")
    asked = _questions(context)
    earlier_answers.take_over(context, asked, log)
    return asked


def headline(summary: Mapping[str, Any]) -> str:
    """`29 preferences by python:scorer:score, 1 tied`."""
    words = {"tie": "tied", "both_bad": "both bad", "skip": "skipped"}
    others = [f"{summary[key]} {word}" for key, word in words.items() if summary[key]]
    unanswered = [f"{summary['unanswered']} left unanswered"] if summary["unanswered"] else []
    return ", ".join(
        [f"{summary['chosen']} preferences by {summary['oracle']}", *others, *unanswered, *judging.headline(summary)]
    )


def _selected(asked: Sequence[Question]) -> list[Comparison]:
    return [question.comparison for question in asked if question.role == "selected"]


def _left_to_people(asked: Sequence[Question], log: LabelLog) -> list[Question]:
    """What people are asked beside a judge: what it left, what two are to answer, and what measures."""
    left = {comparison.pair_id for comparison in judging.left_to_people(_selected(asked), log)}
    return [
        question
        for question in asked
        if question.role != "selected" or question.people > 1 or question.comparison.pair_id in left
    ]


def _questions(context: Context) -> list[Question]:
    """What is asked: of people perhaps more than the selected pairs.

    A stage that is closed again was closed with what measures, or without it, and waits for one answer to each selected
    pair alone.
    """
    config, options = context.settings, context.execution.options
    is_closed_again = options.get("rebuild") and not (options.get("import") or options.get("export"))
    if asks_some_people(config.label.oracle) and not is_closed_again:
        return questions_for_people(context.run, context.iteration, config.label, config.seed)
    if draws_answers(config.label):
        return selected_questions(context.run, context.iteration, config.label, config.seed)
    return [Question(comparison=comparison) for comparison in questions(context.run, context.iteration)]


def _open(context: Context) -> Oracle:
    config = context.settings
    return open_oracle(
        config.label.oracle, config.label, context.execution.device, preferences=context.run.pool_preferences()
    )


def _refuse_files(context: Context) -> None:
    options = context.execution.options
    if options.get("export") or options.get("import"):
        raise UsageError(
            f"--export and --import are for people, and label.oracle is `{context.settings.label.oracle}`",
            hint="add `--oracle human`",
        )
    if options.get("web"):
        raise UsageError(
            f"--web asks people, and label.oracle is `{context.settings.label.oracle}`", hint="add `--oracle human`"
        )


def _ask_people(context: Context, asked: list[Question], log: LabelLog) -> None:
    """Import answers, export questions, or hold a sitting at the terminal, as the options say."""
    options = context.execution.options
    if options.get("import"):
        import_file(context, Path(options["import"]), asked, log)
    elif options.get("export"):
        export_file(context, Path(options["export"]), asked, log)
    elif not (options.get("accept_partial") or (options.get("rebuild") and not _is_wanting(asked, log))):
        guidelines = _text_of(Path(options["guidelines"])) if options.get("guidelines") else None
        _sit(context, asked, options.get("annotator") or _user(), guidelines)


def _is_wanting(asked: Sequence[Question], log: LabelLog) -> bool:
    """Whether a pair of these has no answer yet."""
    standing = log.labels()
    return any(question.comparison.pair_id not in standing for question in asked)


def _tell_of_fewer(context: Context, asked: Sequence[Question]) -> None:
    """Say where there are fewer pairs than people were to be asked about to measure by."""
    if context.execution.options.get("rebuild"):
        return
    wanted, there = context.settings.label, Counter(question.role for question in asked)
    if wanted.overlap > there["selected"]:
        context.progress.note(
            f"label.overlap is {wanted.overlap}, of {there['selected']} selected pairs: all are asked twice"
        )
    if wanted.control > there["control"]:
        context.progress.note(f"label.control is {wanted.control}, and {there['control']} pairs are left to draw")


def _sit(context: Context, asked: list[Question], annotator: str, guidelines: str | None) -> None:
    """Let people answer, at the terminal or on a page; others have the stage's lock meanwhile, and may sit here too."""
    try:
        with context.progress.handed_over(), sitting(context) as answers:
            if web := context.execution.options.get("web"):
                from activedpo_cli.label.web.server import label_on_the_web  # on use: every command loads this stage

                web = replace(web, people=web.people or [annotator], guidelines=guidelines)
                label_on_the_web(context, asked, queue_of(context, asked, answers, "web", LEASE_SECONDS), web)
                return
            front = front_of_terminal(is_plain=bool(context.execution.options.get("plain")), tell=context.progress.note)
            lease = math.inf  # as long as the sitting, whose end frees its pairs
            front.ask(
                queue_of(context, asked, answers, front.channel, lease), annotator=annotator, guidelines=guidelines
            )
    except StageLeftError as error:
        context.progress.warn(f"{error.message} while you answered; all that was `saved` is kept")


def queue_of(
    context: Context, asked: Sequence[Question], answers: SharedAnswers, channel: str, lease_seconds: float
) -> Queue:
    """The queue on which people are asked by this stage's settings; `channel` says where they sit."""
    config = context.settings
    return Queue(
        asked,
        answers,
        oracle=config.label.oracle,
        seed=config.seed,
        clock=time.monotonic,
        lease_seconds=lease_seconds,
        repeats=config.label.repeat,
        third_decides=config.label.settle == "third",
        channel=channel,
    )


def _left(context: Context) -> dict[str, Any]:
    """What there is to say of a stage that another command closed during a sitting; raises RefusedError if it is gone."""
    closed = context.run.stage("label", context.iteration).manifest
    if closed is None:
        raise RefusedError(f"`{context.folder.path}` was taken away during the sitting")
    return closed.summary


def _text_of(path: Path) -> str:
    try:
        text = read_limited(path, LARGEST_GUIDELINES).decode("utf-8-sig")  # some editors write a mark at the beginning
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDataError(f"the guidelines `{path}` can't be read: {error}", hint="a text in UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "annotator"


def _close(context: Context, asked: list[Question], log: LabelLog, stopped: str | None) -> dict[str, Any]:
    answers = log.answers()
    standing = settled(answers, context.settings.label.settle)
    comparisons = _selected(asked)
    answered = [comparison for comparison in comparisons if comparison.pair_id in standing]
    pending = len(comparisons) - len(answered)
    missing = missing_answers(asked, answers, third_decides=context.settings.label.settle == "third")
    oracle = context.settings.label.oracle
    if missing and not (answered and context.execution.options.get("accept_partial")):
        if keeps_replies(oracle) and not asks_some_people(oracle):
            raise judging.pending(context, comparisons, log, stopped)
        raise _pending(context, pending, len(comparisons), missing)
    if missing:
        refuse_while_people_answer(context.run, context.iteration)
    about_judge = judging.summary(context, comparisons, log) if keeps_replies(oracle) else {}
    outcomes = [_outcome(comparison, standing[comparison.pair_id]) for comparison in answered]
    context.folder.write_rows("outcomes.jsonl", outcomes)
    preferred = [(pair, row) for pair, row in zip(answered, outcomes, strict=True) if row.preferred_id]
    read = _as_read(context)
    preferences = [asdict(_preference(pair, row, read)) | read.arguments for pair, row in preferred]
    context.folder.write_json_lines("preferences.jsonl", preferences)
    counts: Counter[str] = Counter(row.outcome for row in outcomes)
    own = earlier_answers.bought(context.run, context.iteration, log)
    return {
        **{outcome: counts[outcome] for outcome in ("chosen", "tie", "both_bad", "skip")},
        "labels_spent": sum(row.outcome in SPENT_OUTCOMES and row.pair_id in own for row in outcomes)
        + (earlier_answers.drawn_again(answers, own) if draws_answers(context.settings.label) else 0),
        "unanswered": pending,
        "oracle": oracle,
        **about_judge,
        **measuring_counts(answers),
    }


def _pending(context: Context, pending: int, pairs: int, missing: int) -> LabelsPendingError:
    """What is still to be answered, and how to go on."""
    command = going_on = context.command("label")
    people = ""
    if pending:
        waiting = f"{pending} of {pairs} pairs still wait for an answer"
    else:
        waiting = f"all {pairs} pairs are answered, and {missing} answers that measure agreement are still missing"
        people = ", for somebody who has not answered these pairs"
        if not context.execution.options.get("web"):
            going_on = context.command("label", "--annotator", "NAME")
    return LabelsPendingError(
        waiting,
        hint=f"go on with `{going_on}`{people}, or close the stage without them with `{command} --accept-partial`",
        facts={
            "stage": "label",
            "iteration": context.iteration,
            "state": "labels pending",
            "folder": str(context.folder.path),
            "pairs": pairs,
            "answered": pairs - pending,
            "missing": missing,
            "next": command,
        },
    )


def _outcome(comparison: Comparison, label: Label) -> OutcomeRow:
    return OutcomeRow(
        pair_id=comparison.pair_id,
        prompt_id=comparison.response_a.prompt_id,
        response_a_id=comparison.response_a.response_id,
        response_b_id=comparison.response_b.response_id,
        outcome=label.outcome,
        preferred_id=label.preferred_id,
        oracle=label.oracle,
        score_a=label.score_a,
        score_b=label.score_b,
    )


@dataclass(frozen=True)
class _Reading:
    """How the model read the prompts of an iteration; of runs that do not say so, as before that could be said.

    Attributes:
        renders_text: Whether plain prompts went through a chat template.
        continues: Whether responses go on with answers that prompts begin.
        arguments: What the template was given beside the messages, as a column of TRL's; none where it was given nothing.

    """

    renders_text: bool
    continues: bool
    arguments: dict[str, Any]


def _as_read(context: Context) -> _Reading:
    manifest = context.run.stage("generate", context.iteration).manifest
    if manifest is None:
        return _Reading(False, False, {})
    summary = manifest.summary
    is_rendered = bool(summary.get("rendered"))
    arguments = as_arguments(manifest.settings.get("prompts.template_kwargs", [])) if is_rendered else {}
    return _Reading(
        is_rendered,
        bool(summary.get("started_answers")),
        {ARGUMENTS: arguments} if arguments else {},
    )


def _preference(comparison: Comparison, row: OutcomeRow, read: _Reading) -> Preference:
    first = row.preferred_id == row.response_a_id
    chosen, rejected = comparison.response_a, comparison.response_b
    scores = (row.score_a, row.score_b)
    if not first:
        chosen, rejected, scores = rejected, chosen, scores[::-1]
    prompt, texts = comparison.prompt, [chosen.text, rejected.text]
    if read.renders_text and isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if read.continues:
        texts = [with_whole_answer(prompt, text)[1] for text in texts]
        prompt = with_whole_answer(prompt, "")[0]

    def answer(text: str) -> PromptText:
        return [{"role": "assistant", "content": text}] if isinstance(prompt, list) else text

    return Preference(
        pair_id=row.pair_id,
        prompt_id=row.prompt_id,
        prompt=prompt,
        chosen=answer(texts[0]),
        rejected=answer(texts[1]),
        chosen_id=chosen.response_id,
        rejected_id=rejected.response_id,
        oracle=row.oracle,
        score_chosen=scores[0],
        score_rejected=scores[1],
    )


STAGE = Stage(
    "label",
    1,
    settings,
    inputs,
    open_work,
    headline,
    check,
    sections=("label",),
    also=JUDGE_KEYS_BESIDE_WORK,
    logs=("labels.jsonl", *TORN_NAMES, REPLIES_NAME),
    files={GOLD: GOLD},
    work_options=("import", "export", "ask-again"),
    is_done=is_done,
    check_free=refuse_while_people_answer,
    is_shared=is_called,
    is_done_here=is_for_this_process,
    reopening=earlier_answers,
)
