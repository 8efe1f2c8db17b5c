"""Answers given before are used again: for the same texts when a stage is made again, and by `--rebuild`.

When a stage is made again, `take_over` finds what was answered before about the same texts, and `bought` leaves out what an
earlier iteration has counted. The other functions open a closed stage again (`--rebuild`), to write its other files from the
answers that it keeps.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from activedpo_cli.base.config import flat, with_changes
from activedpo_cli.base.errors import InvalidDataError, RefusedError, UsageError
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.records import SPENT_OUTCOMES, Asked, Label, OutcomeRow, sides_of
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.differences import all_settings
from activedpo_cli.engine.repairs import OUTCOMES_NAME
from activedpo_cli.engine.step import STAGE_INPUT, Context, Execution, Stage, again
from activedpo_cli.label.judging import is_of_judge
from activedpo_cli.label.questions import Question
from activedpo_cli.label.settlement import Rule, settled
from activedpo_cli.oracles.base import Comparison, asks_some_people, draws_answers, keeps_replies
from activedpo_cli.store import files, manifest
from activedpo_cli.store.audit import file_fault
from activedpo_cli.store.label_log import LabelLog
from activedpo_cli.store.manifest import MANIFEST_NAME, Started
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder

PEOPLE_ALONE = "human"
STALE_NAME = re.compile(r"iter-\d+-(?:\.label\.redo|label)-(?P<moment>\d{8}T\d{6})(?:-(?P<number>\d+))?")
"""How a folder of labels is called that `--force` set aside."""


def take_over(context: Context, asked: Sequence[Question], log: LabelLog) -> None:
    """Take over answers to the same questions from stages that were made before, and say how many.

    A question is a prompt and two texts, on whichever side. Answers of people always count, those to gold pairs for their
    own iteration alone: gold is dealt from the beginning again when all was asked, and is to show how people read now.
    Those of a machine count where this stage is made again because other pairs are selected, where the machine's settings
    and digests are the same, and, where answers are drawn at random, only for the same pair, by which they are drawn.

    With `--ask-again` none is taken over, and those that were are taken back. The log says so for each pair, so that every
    later command that goes on with the stage, by whomever, asks anew too. What is taken over is decided once, when the stage
    begins: nothing more comes to a log in which an answer was given or taken back, nor to a stage that `--rebuild` opens.
    """
    options, events = context.execution.options, log.history()
    if options.get("ask-again"):
        known = {event.pair_id for event in events}
        unknown = [pair_id for question in asked if (pair_id := question.comparison.pair_id) not in known]
        log.retract(*unknown, *dict.fromkeys(label.pair_id for label in log.answers() if label.taken_from))
        return
    if options.get("rebuild") or not all(event.label and event.label.taken_from for event in events):
        return
    kept = {label.asked for label in log.answers()}  # a process may have been killed while it wrote what it took over
    found = _answers_before(context, [question.comparison for question in asked])
    stage = f"iter-{context.iteration:03d}/label"
    log.append(
        *(label for question in asked for label in _with_roles(question, found, stage) if label.asked not in kept)
    )
    number = len({label.pair_id for label in log.answers() if label.taken_from})
    if number:
        again = context.anew("label", "--ask-again")
        context.progress.note(
            f"{number} of {len(asked)} pairs were answered before and are not asked again; to ask again: `{again}`"
        )


def _answers_before(context: Context, comparisons: Sequence[Comparison]) -> dict[str, list[Label]]:
    """What everybody said before of these pairs, by pair id, in the order in which it was first given.

    Of what one person answered several times the last one counts. Where a folder has answers to a pair that was asked
    anew there, none that is older counts.
    """
    found: dict[str, dict[Asked, Label]] = {}
    anew: dict[str, str] = {}
    for folder in reversed(_earlier_folders(context)):
        answers, asked_anew = _answers_in(folder, context, comparisons)
        for pair_id, own in answers.items():
            earlier = found.get(pair_id, {})
            if pair_id in asked_anew:
                earlier = {asked: one for asked, one in earlier.items() if _moment(one) > asked_anew[pair_id]}
            later = {
                asked: one
                for asked, one in own.items()
                if _moment(one) >= max(anew.get(pair_id, ""), _moment(earlier.get(asked, one)))
            }
            found[pair_id] = earlier | later
            anew[pair_id] = max(anew.get(pair_id, ""), asked_anew.get(pair_id, ""))
    return {pair_id: sorted(answers.values(), key=_moment) for pair_id, answers in found.items()}


def _moment(label: Label) -> str:
    """When an answer that is taken over was given first: UTC in ISO 8601, so that texts compare as times do."""
    return label.first_given or ""


def _with_roles(question: Question, found: Mapping[str, Sequence[Label]], stage: str) -> Iterator[Label]:
    """The answers found to a question, as what they count here: what was a control once may be selected now.

    `stage` is the one that asks; only what was given for it tells anything by gold.
    """
    is_further = False
    for label in found.get(question.comparison.pair_id, ()):
        if question.role == "gold" and label.taken_from != stage:
            continue
        role = label.role if label.role == "repeat" else question.role_of_answer(is_further)
        is_further = is_further or label.role != "repeat"
        is_as_before = label.role is None and role == "selected"
        yield label if is_as_before else replace(label, role=role, known_id=question.known_id)


def bought(run: Run, iteration: int, log: LabelLog) -> dict[str, Label]:
    """The answers that stand in an iteration's log and that no closed iteration before it has, by pair id.

    So an answer that two iterations use was bought once, by the first of them. Raises InvalidDataError where the log is
    damaged; that of another iteration, if it is damaged, counts as empty.
    """
    standing = log.labels()
    if not any(label.taken_from for label in standing.values()):
        return standing
    before: set[tuple[str, object]] = set()
    for earlier in (run.stage("label", t) for t in run.iterations() if t < iteration):
        with suppress(InvalidDataError):
            if earlier.manifest:
                before.update(*_identities(earlier.label_log()).values())
    identities = _identities(log)
    return {pair: label for pair, label in standing.items() if not (label.taken_from and identities[pair] & before)}


def drawn_again(answers: Iterable[Label], own: Mapping[str, Label]) -> int:
    """How many second answers were drawn for an iteration, `own` being what `bought` says of the first ones.

    They count as spent: where answers are drawn, what is compared is what methods make of as many.
    """
    return sum(
        label.role == "overlap" and label.outcome in SPENT_OUTCOMES and label.pair_id in own for label in answers
    )


def _identities(log: LabelLog) -> dict[str, set[tuple[str, object]]]:
    """By pair id, what an answer that stands is known by wherever it is used: when it was given, and about what."""
    times = {event.label.asked: event.time for event in log.standing() if event.label}
    return {
        pair: {
            (label.first_given or times[label.asked], about) for about in (pair, label.texts and _question(label.texts))
        }
        for pair, label in log.labels().items()
    }


def _earlier_folders(context: Context) -> list[StageFolder]:
    """Where answers of this run may lie: the stage that is made again, other iterations, then `.stale/`, newest first.

    For a machine these are the folders of this iteration, and none where the newest of them was about the same selection:
    who makes that again wants the machine asked, since no digest covers all that its answers depend on, such as what a
    function imports.
    """
    run = context.run
    iterations = [context.iteration, *(t for t in run.iterations() if t != context.iteration)]
    present = [run.stage("label", t) for t in iterations]
    replaced = [(STALE_NAME.fullmatch(path.name), path) for path in run.stale.glob("iter-*") if path.is_dir()]
    ages = [(match["moment"], int(match["number"] or 0), path) for match, path in replaced if match]
    folders = present + [StageFolder(path) for _, _, path in sorted(ages, reverse=True)]
    folders = [folder for folder in folders if folder.path != context.folder.path and folder.has("labels.jsonl")]
    if asks_some_people(context.settings.label.oracle):
        return folders
    own = [folder for folder in folders if _iteration_of(folder) == context.iteration]
    return [] if own and _selection(own[0]) == _selection(context.folder) else own


def _iteration_of(folder: StageFolder) -> int | None:
    match = re.match(r"iter-(\d+)", folder.path.name) or re.fullmatch(r"iter-(\d+)", folder.path.parent.name)
    return int(match[1]) if match else None


def _selection(folder: StageFolder) -> str | None:
    """The digest of the selected pairs that the answers in a folder are about, None where its record does not say."""
    try:
        record = folder.manifest or folder.started
    except InvalidDataError:
        return None
    return record.inputs.get(f"iter-{record.iteration:03d}/select") if record else None


def _answers_in(
    folder: StageFolder, context: Context, comparisons: Sequence[Comparison]
) -> tuple[dict[str, dict[Asked, Label]], dict[str, str]]:
    """The answers of one folder that stand and count for these pairs, by the ids of these, whoever gave them.

    With them comes when pairs were asked anew there: when whatever anybody had said of them was taken back.
    """
    try:
        log = folder.label_log()
        record, events = folder.manifest or folder.started, log.standing()
    except InvalidDataError as error:
        context.progress.warn(f"answers given before are not taken over: {error.message}")
        return {}, {}
    now, settings = context.folder.started, context.settings.label
    assert now is not None
    if record is None or not (asks_some_people(settings.oracle) or _is_same_oracle(record, now)):
        return {}, {}
    taken_back = {event.pair_id: event.time for event in log.history() if event.label is None and event.asked is None}
    is_drawn = draws_answers(settings)
    has_same_responses = _response_inputs(record) == _response_inputs(now)
    by_texts = {_question(comparison.texts): comparison for comparison in comparisons}
    by_id = {comparison.pair_id: comparison for comparison in comparisons}
    found: dict[str, dict[Asked, Label]] = {}
    asked_anew: dict[str, str] = {}
    for pair_id, label, time_given in ((event.pair_id, event.label, event.time) for event in events):
        if label is None:
            continue
        if label.texts is not None:
            comparison = by_texts.get(_question(label.texts))
        else:  # an older version named the texts by their ids alone
            comparison = by_id.get(pair_id) if has_same_responses else None
        if comparison is None or not _counts_for(label, settings.oracle):
            continue
        if is_drawn and (pair_id, record.iteration) != (comparison.pair_id, context.iteration):
            continue
        taken = replace(
            _about(comparison, label),
            oracle=settings.oracle,
            taken_from=label.taken_from or f"iter-{record.iteration:03d}/label",
            first_given=label.first_given or time_given,
        )
        found.setdefault(comparison.pair_id, {})[taken.asked] = taken
        if pair_id in taken_back:
            asked_anew[comparison.pair_id] = taken_back[pair_id]
    return found, asked_anew


def _counts_for(label: Label, oracle: str) -> bool:
    """Whether an answer is one of those that this oracle gives.

    Those of a judge are none: they are read again from its replies, which are kept, and asked for where it is another one.
    Those that people gave beside a judge, or before there was one, are answers of the same people.
    """
    if _asks_people_and_judge(oracle) or _asks_people_and_judge(label.oracle):
        others = (spec for spec in (oracle, label.oracle) if not _asks_people_and_judge(spec))
        return not is_of_judge(label) and all(spec == PEOPLE_ALONE for spec in others)
    return label.oracle == oracle and not keeps_replies(oracle)


def _asks_people_and_judge(spec: str) -> bool:
    try:
        return keeps_replies(spec) and asks_some_people(spec)
    except UsageError:  # of a package that is not installed here
        return False


def _about(comparison: Comparison, label: Label) -> Label:
    """The label as one about `comparison`, which asks the same, perhaps under other ids and with sides changed."""
    was_a, _ = sides_of(label.pair_id)
    has_sides_changed = label.texts is not None and label.texts != comparison.texts

    def now(response_id: str | None) -> str | None:
        if response_id is None:
            return None
        is_a = (response_id == was_a) != has_sides_changed
        return (comparison.response_a if is_a else comparison.response_b).response_id

    scores = (label.score_b, label.score_a) if has_sides_changed else (label.score_a, label.score_b)
    return replace(
        label,
        pair_id=comparison.pair_id,
        preferred_id=now(label.preferred_id),
        first_id=now(label.first_id),
        score_a=scores[0],
        score_b=scores[1],
        texts=comparison.texts,
    )


def _question(texts: Sequence[str]) -> tuple[str, frozenset[str]]:
    return texts[0], frozenset(texts[1:])


def _is_same_oracle(earlier: Started, now: Started) -> bool:
    """Whether a machine would answer now as it did then: by its settings, its digests, and what came with the responses."""

    def deciding(record: Started) -> tuple[dict[str, Any], dict[str, str]]:
        defaults = flat(Config(), "label")
        return (
            {key: record.settings.get(key, value) for key, value in defaults.items()},
            {name: digest for name, digest in record.inputs.items() if not STAGE_INPUT.fullmatch(name)},
        )

    return deciding(earlier) == deciding(now)


def _response_inputs(record: Started) -> dict[str, str]:
    return {name: digest for name, digest in record.inputs.items() if name == "pool" or name.endswith("/generate")}


def has_damaged_record(folder: StageFolder) -> bool:
    """Whether there are answers, and the record of how they were asked for can't be read."""
    try:
        return (folder.manifest or folder.started) is None and folder.has("labels.jsonl")
    except InvalidDataError:
        return folder.has("labels.jsonl")


def restore_answers(run: Run, folder: StageFolder, progress: Progress) -> None:
    """Put answers back that the log lost and that the closed stage's list of outcomes still has, byte for byte.

    Of a damaged log, which is kept in `.stale`, all intact lines stay. What came from the list has no times, annotators and
    notes. Raises InvalidDataError, before anything is changed, where the log is damaged and the list is not as written.
    """
    record = folder.manifest
    assert record is not None
    listed = record.outputs.get(OUTCOMES_NAME)
    is_whole = listed is not None and file_fault(folder.path, OUTCOMES_NAME, listed) is None
    log = folder.label_log()
    try:
        log.history()
    except InvalidDataError:
        if not is_whole:
            raise
        log = _with_intact_lines(run, folder, progress)
    if not is_whole:
        return
    rule = record.settings.get("label.settle", "first")
    restored = _restored(log, folder.read_rows(OUTCOMES_NAME, OutcomeRow), rule)
    if restored:
        progress.warn(
            f"{restored} answers were restored from `{folder.path / OUTCOMES_NAME}`, without times, names and notes"
        )


def _with_intact_lines(run: Run, folder: StageFolder, progress: Progress) -> LabelLog:
    """The log of a folder, cut down to what is intact; as it was it is kept in `.stale`."""
    path = folder.label_log().path
    part, damaged = folder.label_log().intact_part()
    kept = _place_aside(run, folder, path.name)
    files.make_folder(kept.parent)
    files.write_bytes(kept, read_limited(path))
    files.write_bytes(path, part)
    progress.warn(
        f"`{path}` had {counted(damaged, 'damaged line')}, and keeps the others; as it was it is now `{kept}`"
    )
    return folder.label_log()


def _restored(log: LabelLog, rows: Sequence[OutcomeRow], rule: Rule) -> int:
    """Put outcomes back of which the answers that are left say otherwise, or nothing; returns how many.

    An answer that trained and says otherwise was given anew, by a line that is lost, and no longer counts. What further
    people said stays where the outcome stands beside it.
    """
    answers = log.answers()
    counting = settled(answers, rule)
    shared = ("pair_id", "outcome", "preferred_id", "oracle", "score_a", "score_b")
    labels: list[Label] = []
    lost = [row for row in rows if not _is_outcome(counting.get(row.pair_id), row)]
    if lost:
        log.repair()
    for row in lost:
        label = Label(**{name: getattr(row, name) for name in shared})
        own = [answer for answer in answers if answer.pair_id == row.pair_id]
        for answer in own:
            log.retract_answer(answer.asked)
        beside = [answer for answer in own if answer.role in ("overlap", "repeat")]
        if not _is_outcome(settled([label, *beside], rule)[row.pair_id], row):
            beside = [answer for answer in beside if answer.role == "repeat"]
        labels += [label, *beside]
    log.append(*labels)
    return len(lost)


def _is_outcome(label: Label | None, row: OutcomeRow) -> bool:
    return label is not None and (label.outcome, label.preferred_id) == (row.outcome, row.preferred_id)


def adopt_answers(
    run: Run, stage: Stage, iteration: int, given: Mapping[str, Any], execution: Execution, progress: Progress
) -> None:
    """Take answers over whose record is gone or damaged, with settings as `config.yaml` and flags have them now.

    The damaged record is kept in `.stale`. Raises RefusedError where the answers are of another oracle than these settings
    name, InvalidDataError where an answer is not intact.
    """
    folder = run.stage(stage.name, iteration)
    config = with_changes(run.config, given)
    others = {label.oracle for label in folder.label_log().labels().values()} - {config.label.oracle}
    if others:
        raise RefusedError(
            f"the answers in `{folder.path}` are those of `{sorted(others)[0]}`, and label.oracle is "
            f"`{config.label.oracle}`",
            hint=again(run, stage.name, iteration, execution, "--rebuild", "--oracle", sorted(others)[0]),
        )
    started = Started(
        stage=stage.name,
        stage_version=stage.version,
        iteration=iteration,
        settings=stage.settings(config),
        inputs=stage.inputs(run, iteration, stage.seen(run, None, given)),
    )
    run.change_config(all_settings(config, given))
    manifest.write_started(folder.path, started)
    record = folder.path / MANIFEST_NAME
    if record.exists():
        progress.warn(f"`{record}` is damaged; it is now `{_keep_aside(run, folder, MANIFEST_NAME)}`")
    progress.warn(f"how the answers in `{folder.path}` were asked for is taken from `{run.path}/config.yaml`")


def _keep_aside(run: Run, folder: StageFolder, name: str) -> Path:
    kept = _place_aside(run, folder, name)
    files.move(folder.path / name, kept)
    return kept


def _place_aside(run: Run, folder: StageFolder, name: str) -> Path:
    moment = time.strftime("%Y%m%dT%H%M%S")
    return run.stale / f"{folder.path.parent.name}-{folder.path.name}-{moment}-{name}"
