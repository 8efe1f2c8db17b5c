"""`label --export` and `--import`: pairs out to a file that people answer anywhere, and their answers back.

Here answers are joined to questions: by ids, never by texts, which only have to be the same. What a file looks like is the
business of its format, one module in `formats/`. Sides are shuffled on the way out.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from activedpo_cli.base import discovery
from activedpo_cli.base.columns import is_blank
from activedpo_cli.base.delimited import FORMULA
from activedpo_cli.base.display import without_surrogates
from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.records import Asked, Label, Outcome, SelectedPair, prompt_as_text
from activedpo_cli.base.table_numbers import TRUTHS, as_number, mend_of_number
from activedpo_cli.base.tables import check_file, named_lines, parse_table
from activedpo_cli.engine.step import Context, again
from activedpo_cli.label.borrowed_names import RESPONSE_IDS, under_borrowed_name, under_own_name
from activedpo_cli.label.formats.argilla import RECORDS
from activedpo_cli.label.formats.base import COLUMNS, OUTCOMES, FoundAnswer, Row
from activedpo_cli.label.judging import is_of_judge
from activedpo_cli.label.questions import Question
from activedpo_cli.label.queue import shown_sides
from activedpo_cli.label.standing import Standing
from activedpo_cli.oracles.base import Comparison
from activedpo_cli.store.files import write_bytes
from activedpo_cli.store.label_log import LabelLog
from activedpo_cli.store.run import Run

PROBLEMS_SHOWN = 10
UNKNOWN_PAIR = re.compile(r"pair `(\S+)` is not one of those to be labelled")
TABLES = ("csv", "jsonl")
"""Formats that are filled in as they are, and whose file comes back under the same name."""


@dataclass(frozen=True)
class Reading:
    """How a file is to be read.

    Attributes:
        format_name: Its format; None where its rows tell.
        annotator: Who answered where a row does not say.
        names: What another tool calls a person, and what they are called here.

    """

    format_name: str | None = None
    annotator: str | None = None
    names: Mapping[str, str] | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Reading":
        """As the options of the command say; raises UsageError where a name is given in another form than `2=ann`."""
        names: dict[str, str] = {}
        for text in options.get("map") or ():
            theirs, _, ours = (word.strip() for word in text.partition("="))
            if not theirs or not ours or names.get(theirs, ours) != ours:
                raise UsageError(f"`--map {text}` gives nobody a name", hint="--map 2=ann says that `2` is `ann` here")
            names[theirs] = ours
        return cls(options.get("format"), options.get("annotator"), names)


@dataclass(frozen=True)
class Filled:
    """What a file holds.

    Attributes:
        labels: Its answers, of several about a pair the first in time first; one for each person and pair.
        pair_ids: The pairs that it asks about, answered or not.
        waiting: The numbers of lines or tasks without an answer.
        unit: What these are: `line`, `task`.
        people: How many answers each person gave, by the name that the file has for them; those without one are left out.

    """

    labels: list[Label]
    pair_ids: list[str]
    waiting: list[int]
    unit: str
    people: Mapping[str, int]


def import_file(context: Context, path: Path, asked: Sequence[Question], log: LabelLog) -> None:
    """Take answers from a file.

    Another person's answer to a pair that has one already is no contradiction: it is kept beside the first, to measure by.

    Raises:
        InvalidDataError: It can't be read, or contradicts what stands.
        UsageError: Nobody knows who answered pairs about which a judge has said something.

    """
    options = context.execution.options
    try:
        filled = read_answers(path, asked, Reading.of(options), oracle=context.settings.label.oracle)
    except InvalidDataError as error:
        error.hint = error.hint or _for_iteration_meant(context, path, error.details)
        raise
    standing = log.answers()
    differing = differing_answers(filled.labels, standing)
    if differing:
        raise InvalidDataError(
            f"`{path}` answers {counted(len(differing), 'pair')} otherwise than before",
            details=differing,
            hint="remove these rows from the file; or, to ask all again, keeping what was answered in "
            f"`{context.run.stale}`: `{context.anew('label', '--ask-again', *words_of_import(path, options))}`",
        )
    new = new_answers(filled.labels, standing, asked)
    _require_names_beside_judge(context, path, new)
    log.append(*new)
    context.progress.note(f"{counted(len(new), 'new answer')} from `{path}`{_by_role(new)}")
    _note_other_names(context, filled.labels, standing)
    if filled.waiting:
        row = "row" if filled.unit == "line" else filled.unit
        rows = f"1 {row} has" if len(filled.waiting) == 1 else f"{len(filled.waiting)} {row}s have"
        named = named_lines(filled.waiting).replace("line", filled.unit)
        context.progress.note(f"{rows} no preference yet ({named})")
    unnamed = [name for name in filled.people if name not in (Reading.of(options).names or {})]
    if unnamed and filled.unit != "line":
        who = ", ".join(f"`{name}` ({filled.people[name]})" for name in unnamed)
        context.progress.note(
            f"people go by the names of the file: {who}; `--map {unnamed[0]}=NAME` at the first import gives another"
        )


def _for_iteration_meant(context: Context, path: Path, problems: Sequence[str]) -> str | None:
    """The command for the other iteration to which the unknown pairs of a file belong; None where they belong to none."""
    unknown = {match[1] for problem in problems if (match := UNKNOWN_PAIR.search(problem))}
    for iteration in context.run.iterations():
        selected = context.run.stage("select", iteration)
        pairs = (
            [row.pair_id for row in selected.read_rows("selection.jsonl", SelectedPair)] if selected.manifest else []
        )
        pairs += [label.pair_id for label in context.run.stage("label", iteration).label_log().answers()]
        if unknown and iteration != context.iteration and unknown <= {*pairs}:
            command = again(
                context.run, "label", iteration, context.execution, *words_of_import(path, context.execution.options)
            )
            return f"these pairs are those of iteration {iteration}: `{command}`"
    return None


def words_of_import(path: Path, options: Mapping[str, Any]) -> list[str]:
    """The words that ask for the same import again."""
    how = ["--format", options["format"]] if options.get("format") else []
    return ["--import", str(path), *how, *(word for pair in options.get("map") or () for word in ("--map", pair))]


def read_answers(path: Path, asked: Sequence[Question], reading: Reading, *, oracle: str = "human") -> Filled:
    """What is in a file, as `filled_in` finds it; raises InvalidDataError where it can't be read."""
    if (path / RECORDS).is_file():
        path = path / RECORDS
    comparisons = [question.comparison for question in asked]
    names = {question.name_in_files: question.comparison for question in asked if question.name_in_files}
    return filled_in(_content(path), path.name, comparisons, reading, oracle=oracle, names=names)


def differing_answers(answers: Sequence[Label], standing: Sequence[Label]) -> list[str]:
    """A line for each pair to which the same person answered otherwise before; the first few, and how many more.

    An answer without a name may be anybody's, and so may what it is compared with.
    """
    lines, before = [], _Earlier(standing)
    for label in answers:
        earlier = before.of_same_person(label)
        if earlier and _says(earlier) != _says(label):
            lines.append(f"pair `{label.pair_id}`: {_in_words(earlier)} → {_in_words(label)}")
    return first_few(lines)


def new_answers(answers: Sequence[Label], standing: Sequence[Label], asked: Sequence[Question]) -> list[Label]:
    """Those that nobody of the same name gave before, as what they count: a further person's measures agreement."""
    questions = {question.comparison.pair_id: question for question in asked}
    answered = {label.pair_id for label in standing}
    new, before = [], _Earlier(standing)
    for label in answers:
        if before.of_same_person(label) is None:
            question = questions[label.pair_id]
            role = question.role_of_answer(label.pair_id in answered)
            new.append(replace(label, role=role, known_id=question.known_id))
            answered.add(label.pair_id)
    return new


def _by_role(new: Sequence[Label]) -> str:
    """How many of them measure agreement, where some do."""
    further = sum(label.role == "overlap" for label in new)
    return f", {further} of them by further people, which measure agreement" if further else ""


def _require_names_beside_judge(context: Context, path: Path, new: Sequence[Label]) -> None:
    """Refuse answers without a name where a judge's, which has none either, would be replaced by them.

    Beside a person's answer one without a name is not new, so that a further one is about what a judge answered.
    """
    nameless = [label.pair_id for label in new if label.role == "overlap" and label.annotator is None]
    if nameless:
        words = words_of_import(path, context.execution.options)
        raise UsageError(
            f"`{path}` does not say who answered, which is needed where the judge has answered too: "
            f"{counted(len(nameless), 'pair')}, first `{nameless[0]}`",
            hint=f"`{context.command('label', *words, '--annotator', 'NAME')}`",
        )


class _Earlier:
    """Answers that stand, by pair, so that a file of many rows is compared with many answers in one pass."""

    def __init__(self, standing: Sequence[Label]) -> None:
        self._by_pair: dict[str, list[Label]] = {}
        for label in standing:
            if label.role != "repeat" and not is_of_judge(label):
                self._by_pair.setdefault(label.pair_id, []).append(label)

    def of_same_person(self, label: Label) -> Label | None:
        """What the person of an answer said of its pair before; a judge's answer, which has no name either, is nobody's.

        An answer under the very name goes before one that may be anybody's.
        """
        given = [one for one in self._by_pair.get(label.pair_id, ()) if _is_of_same_person(label, one)]
        return next((one for one in given if one.annotator == label.annotator), given[0] if given else None)


def _is_of_same_person(label: Label, earlier: Label) -> bool:
    return (
        None in (label.annotator, earlier.annotator)
        or earlier.annotator == label.annotator
        or _has_two_names(label, earlier)
    )


def _has_two_names(label: Label, earlier: Label) -> bool:
    """Whether a file was read once with a name for somebody, and once without: these are no two people.

    Two files may call two people the same, as servers do that count their users from 1, so two given names are two people.
    """
    unnamed = {_name_in_files(one.annotator, label.pair_id) for one in (label, earlier)}
    return label.answer_id is not None and label.answer_id == earlier.answer_id and label.answer_id in unnamed


def _name_in_files(person: str | None, pair_id: str) -> str | None:
    """The name of an answer by what a file calls whoever gave it; None where it does not say."""
    return f"file:{person}:{pair_id}" if person else None


def _note_other_names(context: Context, labels: Sequence[Label], standing: Sequence[Label]) -> None:
    """Say which people of a file have answered before under another name; what stands keeps it."""
    known = _Earlier(standing)
    earlier = [(label.annotator, known.of_same_person(label)) for label in labels]
    pairs = {(name, one.annotator) for name, one in earlier if one and name and one.annotator and name != one.annotator}
    for name, before in sorted(pairs):
        context.progress.note(f"answers of `{name}` stand already under the name `{before}`, which they keep")


def first_few(lines: Sequence[str]) -> list[str]:
    """As many lines as can be read at once, and how many more there are."""
    more = [f"… and {len(lines) - PROBLEMS_SHOWN} more"] if len(lines) > PROBLEMS_SHOWN else []
    return [*lines[:PROBLEMS_SHOWN], *more]


def _content(path: Path) -> bytes:
    check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidDataError(f"`{path}` can't be read: {error.strerror}") from error


def export_file(context: Context, path: Path, asked: Sequence[Question], log: LabelLog) -> None:
    """Write the pairs that wait for an answer; raises UsageError where something else has the name of what is written."""
    options = context.execution.options
    annotator = options.get("annotator") or ""
    standing = Standing(log.answers(), third_decides=context.settings.label.settle == "third")
    pending = [
        question
        for question in asked
        if (standing.missing(question) or (question.is_for_everybody and annotator))
        and Asked(question.comparison.pair_id, annotator) not in standing
    ]
    chosen = format_to_write(path.name, options.get("format"))
    title = export_title(context.run, context.iteration, annotator)
    rows = [
        under_borrowed_name(
            question_row(question.comparison, annotator, context.settings.seed),
            question.comparison,
            question.name_in_files,
        )
        for question in pending
    ]
    files = chosen.render(rows, path, title)
    others = [place for place, content in files.items() if not holds(place, content)]
    taken = next((place for place in others if place.exists()), None)
    if taken is not None:
        raise UsageError(
            f"`{taken}` exists, and somebody's answers may be in it",
            hint="choose another file name; or read its answers: "
            f"`{context.command('label', *words_of_import(path, options))}`",
        )
    for place in others:
        write_bytes(place, files[place])
    if others:
        said = f"{counted(len(pending), 'pair')} written to `{path}`"
    else:
        said = f"`{path}` is there already, with the {counted(len(pending), 'pair')} still without an answer"
    back = path if format_name_of(chosen) in TABLES else Path("ANSWERS")
    context.progress.note(f"{said}; {chosen.RETURN}, then `{context.command('label', '--import', str(back))}`")


def export_title(run: Run, iteration: int, annotator: str | None) -> str:
    """What a tool that names its data sets calls an export."""
    return "-".join(filter(None, [run.path.name, f"iter-{iteration:03d}", annotator]))


def format_name_of(chosen: ModuleType) -> str:
    """The name of a format's module, by which `TABLES` are told from others."""
    return chosen.__name__.rpartition(".")[2]


def holds(path: Path, content: bytes) -> bool:
    """Whether a file is there with this content."""
    return path.is_file() and path.read_bytes() == content


def format_to_write(name: str, format_name: str | None) -> ModuleType:
    """The format of a file to be written; raises UsageError where its name does not fit, or does not tell."""
    suffix = Path(name).suffix.lower()
    if format_name is None:
        if suffix[1:] not in TABLES:
            known = ", ".join(discovery.available("formats"))
            raise UsageError(
                f"`{name}` ends neither in .jsonl nor in .csv", hint=f"--format says what it is to be: {known}"
            )
        format_name = suffix[1:]
    chosen = discovery.load("formats", format_name)
    if chosen.SUFFIX and suffix != chosen.SUFFIX:
        raise UsageError(f"`{name}` does not end in {chosen.SUFFIX}, as a file of {format_name} does")
    if not chosen.SUFFIX and suffix in (".json", ".jsonl", ".csv"):
        raise UsageError(f"`{name}` is called as a file is, and {format_name} takes a folder")
    return chosen


def filled_in(
    data: bytes,
    name: str,
    comparisons: Sequence[Comparison],
    reading: Reading,
    *,
    oracle: str = "human",
    names: Mapping[str, Comparison] | None = None,
) -> Filled:
    """What a file holds that was made of an export: labels, and pairs that wait.

    `names` says which pairs go by another id there than by their own.

    `preference` is a, b, tie, both_bad or skip, in any case. Rows that repeat an answer count once.

    Raises:
        InvalidDataError: With the place of each problem: a column is missing, a preference or a pair is unknown, a
            number is malformed, one person gave a pair two answers, or the texts are not those of the pair, so that the row
            answers another question.
        UsageError: A person was given a name who gave no answer.

    """
    known = {comparison.pair_id: comparison for comparison in comparisons}
    chosen, found = _found(data, name, reading.format_name)
    given: dict[str, list[tuple[FoundAnswer, Label]]] = {}
    waiting, problems, people = [], [], Counter[str]()
    for one in found:
        try:
            person = _person(one.values)
            values = under_own_name(one.values, names or {})
            label = _answer(values, known, oracle, (reading.names or {}).get(person or "", person), reading)
            if label is None:
                given.setdefault(values["pair_id"], [])
                waiting.append(one.number)
                continue
            people.update([person] if person else [])
            earlier = _given_before(label, given.setdefault(label.pair_id, []))
            if earlier is None:
                given[label.pair_id].append((one, label))
            elif _says(earlier[1]) != _says(label):
                raise ValueError(f"pair `{label.pair_id}` has another answer in {earlier[0].place}")
        except ValueError as problem:
            problems.append(f"{one.place}: {problem}")
    if problems:
        raise InvalidDataError(f"`{name}` has {counted(len(problems), 'problem')}", details=first_few(problems))
    _require_people(reading.names or {}, people, name)
    labels = [label for answers in given.values() for label in _in_time(answers)]
    return Filled(labels, list(given), list(dict.fromkeys(waiting)), chosen.UNIT, people)


def _found(data: bytes, name: str, format_name: str | None) -> tuple[ModuleType, list[FoundAnswer]]:
    """The format of a file, and what it says."""
    table = list(parse_table(data, name, COLUMNS))
    if format_name is None:
        modules = {known: discovery.load("formats", known) for known in discovery.available("formats")}
        recognised = (known for known, module in modules.items() if table and module.recognises(table[0].values))
        format_name = next(recognised, "csv" if Path(name).suffix.lower() in (".csv", ".tsv") else "jsonl")
    chosen = discovery.load("formats", format_name)
    return chosen, list(chosen.answers(table))


def _require_people(names: Mapping[str, str], people: Mapping[str, int], name: str) -> None:
    unknown = sorted(set(names) - set(people))
    if unknown:
        there = ", ".join(f"`{person}`" for person in sorted(people)) or "nobody by a name"
        raise UsageError(
            f"`{unknown[0]}` answered nothing in `{name}`", details=[f"who did: {there}"], hint="--map 2=ann"
        )


def _given_before(label: Label, answers: Sequence[tuple[FoundAnswer, Label]]) -> tuple[FoundAnswer, Label] | None:
    """An earlier answer by the same person; one without a name may be anybody's."""
    same = (
        one for one in answers if None in (label.annotator, one[1].annotator) or one[1].annotator == label.annotator
    )
    return next(same, None)


def _in_time(answers: Sequence[tuple[FoundAnswer, Label]]) -> list[Label]:
    """What several people said of a pair, the first in time first where all times are known."""
    times = [one.when for one, _ in answers]
    order = list(range(len(answers)))
    if None not in times:
        order.sort(key=lambda place: times[place] or 0.0)
    return [answers[place][1] for place in order]


def _says(label: Label) -> tuple[Outcome, str | None]:
    return label.outcome, label.preferred_id


def _in_words(label: Label) -> str:
    return label.preferred_id or label.outcome


def question_row(comparison: Comparison, annotator: str, seed: int) -> dict[str, Any]:
    """A pair as every format is given it: sides as this annotator sees them, nothing answered."""
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


def _answer(
    row: Row, known: Mapping[str, Comparison], oracle: str, person: str | None, reading: Reading
) -> Label | None:
    """The label in a row, None without one; raises ValueError with what is wrong."""
    comparison = known.get(_text(row, "pair_id") or "")
    if comparison is None:
        raise ValueError(f"pair `{row['pair_id']}` is not one of those to be labelled")  # as UNKNOWN_PAIR reads it
    _require_same_question(row, comparison)
    preference = _preference(row)
    if preference is None:
        return None
    return Label(
        pair_id=comparison.pair_id,
        outcome=OUTCOMES[preference],
        preferred_id=_text(row, f"response_{preference}_id") if preference in ("a", "b") else None,
        oracle=oracle,
        annotator=person or reading.annotator,
        seconds=_seconds(row),
        note=_text(row, "notes"),
        texts=comparison.texts,
        first_id=_text(row, "response_a_id"),
        channel="file",
        answer_id=_name_in_files(_person(row), comparison.pair_id),
    )


def _require_same_question(row: Row, comparison: Comparison) -> None:
    texts = {response.response_id: response.text for response in (comparison.response_a, comparison.response_b)}
    ids = [_text(row, column) or "" for column in RESPONSE_IDS]
    if set(ids) != set(texts):
        raise ValueError(f"{ids[0]} and {ids[1]} are not the responses of pair `{comparison.pair_id}`")
    stored = {
        "prompt": prompt_as_text(comparison.prompt),
        "response_a": texts[ids[0]],
        "response_b": texts[ids[1]],
    }
    for column, text in stored.items():
        given = _text(row, column) or ""
        if column in row and _comparable(text) not in (_comparable(given), _comparable(_without_lost_guard(given))):
            raise ValueError(
                f"the {column} of pair `{comparison.pair_id}` is not the stored text, so it answers another question"
            )


def _without_lost_guard(text: str) -> str:
    """The text without the apostrophe of an export whose column `guarded` somebody took out."""
    return text[1:] if text.startswith("'") and FORMULA.match(text[1:]) else text


def _comparable(text: str) -> str:
    """What is left of a text when it went through a spreadsheet."""
    return without_surrogates(text).replace("\r\n", "\n").replace("\r", "\n")


def _preference(row: Row) -> str | None:
    given = (_text(row, "preference") or "").strip()
    if not given:
        return None
    value = given.lower().replace("-", "_").replace(" ", "_")
    if value not in OUTCOMES:
        meant = did_you_mean(value, OUTCOMES) or f", which is none of {', '.join(OUTCOMES)}"
        raise ValueError(f"the preference is `{given[:40]}`{meant}")
    return value


def _seconds(row: Row) -> float | None:
    given = row.get("seconds")
    if is_blank(given):
        return None
    seconds = None if str(given).strip().lower() in TRUTHS else as_number(given)
    if seconds is None or seconds < 0:
        raise ValueError(f"seconds is `{given}`, not a number of seconds{mend_of_number(given)}")
    return seconds


def _person(row: Row) -> str | None:
    """The name in a row, without blanks around it, which nobody sees in a spreadsheet; None of blanks alone."""
    return (_text(row, "annotator") or "").strip() or None


def _text(row: Row, column: str) -> str | None:
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"`{column}` is no text")
    return value or None
