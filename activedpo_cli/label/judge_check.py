"""`activedpo judge check`: a judge is asked about pairs that people have answered, and compared with them.

Selected pairs are the hardest there are, on which good people agree least; a pair of *control* was drawn at random, and says
more about the judge elsewhere. Both stand side by side, and apart from them pairs that people got because a judge was unsure
of them, which say nothing of how often it is right about others. Whoever changes the rubric after looking at pairs has
fitted it to these, so that a check with another rubric than before takes pairs first at which no earlier one has looked.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activedpo_cli.base.config import flat
from activedpo_cli.base.errors import InvalidDataError, LabelsPendingError, NotReadyError, UsageError
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.records import Label, sides_of
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import Config
from activedpo_cli.label.agreement import FEWEST_PAIRS
from activedpo_cli.label.judge_plan import JudgePlan, plan
from activedpo_cli.label.judging import (
    CHECK_REPLIES_NAME,
    CHECKED_AFTER,
    KeptReplies,
    is_of_judge,
    settings_of,
    spending,
    statistics_of,
)
from activedpo_cli.oracles.base import (
    Comparison,
    Judge,
    Judgement,
    asks_some_people,
    keeps_replies,
    open_judge,
    oracle_identity,
    parse_spec,
)
from activedpo_cli.oracles.judge import rubric_digest
from activedpo_cli.statistics.agreement import bootstrap_interval, cohen_kappa, cohen_kappa_of, wilson_interval
from activedpo_cli.store import jsonl
from activedpo_cli.store.label_log import LabelLog
from activedpo_cli.store.lock import exclusive
from activedpo_cli.store.reply_log import ReplyLog
from activedpo_cli.store.run import Run

SCHEMA = 2
SELECTED, CONTROL, LEFT = "selected", "control", "left"
"""Why people were asked about a pair; answers with a known truth, or given twice, have other uses.

`left` are selected pairs of which a judge was unsure.
"""
THRESHOLDS = (0.5, 0.25, 0.0)
"""The values of |P − ½| that two orders can have."""


@dataclass(frozen=True)
class AnsweredPair:
    """A pair with what a person said of it: `a`, `b` or `tie`."""

    iteration: int
    role: str
    comparison: Comparison
    answer: str

    @property
    def question(self) -> str:
        """What the pair is known by, whatever ids it has."""
        return " ".join([self.comparison.texts[0], *sorted(self.comparison.texts[1:])])


@dataclass(frozen=True)
class Taken:
    """What is compared, and what was there before.

    Attributes:
        pairs: The pairs about which the judge is asked.
        left_out: By reason, how many other answers there are.
        rubric: The digest of what this check asks by.
        checks: The earlier checks of the run, in order.
        seen: Questions at which one with another rubric has looked, and the first such check.

    """

    pairs: list[AnsweredPair]
    left_out: dict[str, int]
    rubric: str
    checks: list[tuple[Path, dict[str, Any]]]
    seen: dict[str, str]


@dataclass(frozen=True)
class CheckResult:
    """A check: where it stands, what it says, and sentences that a reader should not miss."""

    path: Path
    record: dict[str, Any]
    notes: list[str]
    was_done: bool


def plan_check(run: Run, config: Config, pairs: int, progress: Progress) -> JudgePlan:
    """What a check would ask; nothing is called, and nothing written."""
    spec = _judge_of(config)
    taken = _taken(run, config, pairs)
    return plan(spec, config, [pair.comparison for pair in taken.pairs], _memory(run, progress))


def check_judge(run: Run, config: Config, pairs: int, progress: Progress) -> CheckResult:
    """Ask the judge of `label.oracle` about pairs that people have answered, and write down how both agree.

    Raises:
        UsageError: `label.oracle` names no judge.
        NotReadyError: Nobody has answered pairs in this run.
        InvalidDataError: The judge answers by position.
        LabelsPendingError: A limit was reached; the same command goes on once it is raised.

    """
    spec = _judge_of(config)
    with exclusive(run.lock_path("judge-check"), str(run.path / CHECK_REPLIES_NAME)):
        taken = _taken(run, config, pairs)
        memory = _memory(run, progress)
        judge = open_judge(spec, config.label, memory)
        _ask(judge, taken.pairs, progress)
        known = judge.judgements([pair.comparison for pair in taken.pairs])
        return _written(run, config, spec, taken, known, memory)


def _judge_of(config: Config) -> str:
    """The judge, also where people are asked beside it."""
    spec = config.label.oracle
    if not keeps_replies(spec):
        raise UsageError(f"label.oracle is `{spec}`, which is no judge", hint="--oracle judge:MODEL")
    name, argument = parse_spec(spec)
    return ":".join(filter(None, ["judge" if asks_some_people(spec) else name, argument]))


def _memory(run: Run, progress: Progress) -> KeptReplies:
    return KeptReplies(run, ReplyLog(run.path / CHECK_REPLIES_NAME), progress)


def _ask(judge: Judge, taken: Sequence[AnsweredPair], progress: Progress) -> None:
    comparisons = [pair.comparison for pair in taken]
    progress.start("judge", len(comparisons), "pairs")
    try:
        for start, end in [(0, CHECKED_AFTER), (CHECKED_AFTER, len(comparisons))]:
            judge.compare(comparisons[start:end], lambda pair: 0)
            found = statistics_of(comparisons, judge.judgements(comparisons))
            if found.is_biased:
                raise InvalidDataError(
                    "the judge answers by position, so its verdicts are worth nothing",
                    details=[found.in_words, "its replies are kept"],
                    hint="check another one: another model, or another label.judge.rubric",
                )
    finally:
        progress.stop()
    if judge.stopped is not None:
        done = sum(judgement.probability is not None for judgement in judge.judgements(comparisons))
        raise LabelsPendingError(
            f"{judge.stopped}, and {len(comparisons) - done} of {len(comparisons)} pairs have no verdict yet",
            hint="raise the limit, or check fewer pairs, in the same command: what was replied is kept",
            facts={"state": "pending", "pairs": len(comparisons), "answered": done},
        )


def _taken(run: Run, config: Config, number: int) -> Taken:
    """The pairs that are compared, those first at which no check with another rubric has looked."""
    answered, left_out = _answered_pairs(run)
    if not answered:
        raise NotReadyError(
            f"nobody has answered pairs in `{run.path}` with which a judge could be compared",
            details=[f"left out: {count} × {reason}" for reason, count in left_out.items()],
            hint="let people answer some: `activedpo label --oracle human`",
        )
    rubric, checks = rubric_digest(config.label.judge), _checks(run)
    seen = _looked_at(checks, rubric)
    drawn = random.Random(derive_seed(config.seed, "judge-check"))
    ordered = sorted(answered, key=lambda pair: pair.question)
    drawn.shuffle(ordered)
    pairs = sorted(ordered, key=lambda pair: pair.question in seen)[:number]
    return Taken(pairs, left_out, rubric, checks, seen)


def _answered_pairs(run: Run) -> tuple[list[AnsweredPair], dict[str, int]]:
    """Every question that people answered with a, b or tie, once; and by reason how many other answers there are."""
    found: dict[str, AnsweredPair] = {}
    left_out: Counter[str] = Counter()
    prompts = {prompt.prompt_id: prompt.prompt for prompt in run.prompts()}
    for iteration in run.iterations():
        labels = _labels_of_people(run.stage("label", iteration).label_log())
        if not labels:
            continue
        responses = {response.response_id: response for response in run.responses(iteration)}
        for label, role in labels:
            there = (responses.get(side) for side in sides_of(label.pair_id))
            sides = [response for response in there if response is not None]
            if len(sides) != 2:
                left_out["its responses are gone"] += 1
                continue
            first, second = sides
            comparison = Comparison(label.pair_id, prompts[first.prompt_id], first, second)
            if label.texts is not None and label.texts != comparison.texts:
                left_out["about other texts than are there now"] += 1
            elif label.outcome not in ("chosen", "tie"):
                left_out[label.outcome.replace("_", " ")] += 1
            else:
                answer = (
                    "tie" if label.preferred_id is None else "a" if label.preferred_id == first.response_id else "b"
                )
                pair = AnsweredPair(iteration, role, comparison, answer)
                found.setdefault(pair.question, pair)
    return list(found.values()), dict(left_out)


def _labels_of_people(log: LabelLog) -> list[tuple[Label, str]]:
    """What the first person who did not skip said of each selected pair and of each control, and why they were asked."""
    first: dict[str, Label] = {}
    askers: dict[str, set[str | None]] = {}
    for label in log.answers():
        if not (label.may_train or label.role == CONTROL):
            continue
        askers.setdefault(label.pair_id, set()).add(label.annotator)
        earlier = first.get(label.pair_id)
        if _is_of_people(label) and (earlier is None or (earlier.outcome == "skip" != label.outcome)):
            first[label.pair_id] = label
    return [(label, _role(label, len(askers[label.pair_id]))) for label in first.values()]


def _role(label: Label, answered_by: int) -> str:
    """Why people were asked, whoever was first.

    Beside a judge, what two have answered was drawn for that, of the judge two one; what a person alone has answered is what
    the judge left.
    """
    if label.role == CONTROL:
        return CONTROL
    return LEFT if keeps_replies(label.oracle) and answered_by < 2 else SELECTED


def _is_of_people(label: Label) -> bool:
    try:
        return asks_some_people(label.oracle) and not is_of_judge(label)
    except UsageError:  # of a package that is not installed here
        return False


def _checks(run: Run) -> list[tuple[Path, dict[str, Any]]]:
    """All checks of the run, in order; raises InvalidDataError for one that is damaged."""
    found = []
    for path in sorted(run.path.glob("judge-check-[0-9]*.json")):
        record = jsonl.read_json(path)
        if not isinstance(record, dict) or not {"rubric", "judge", "pairs"} <= record.keys():
            raise InvalidDataError(f"`{path}` is damaged", hint=f"put a copy of it back, or take it away: rm {path}")
        found.append((path, record))
    return found


def _looked_at(checks: Sequence[tuple[Path, dict[str, Any]]], rubric: str) -> dict[str, str]:
    """Questions at which a check with another rubric has looked, and the first such check."""
    found: dict[str, str] = {}
    for path, record in checks:
        if record["rubric"] != rubric:
            for row in record["pairs"]:
                found.setdefault(row["question"], path.name)
    return found


def _written(
    run: Run,
    config: Config,
    spec: str,
    taken: Taken,
    known: Sequence[Judgement],
    memory: KeptReplies,
) -> CheckResult:
    pairs = taken.pairs
    fresh = [pair.question not in taken.seen for pair in pairs]
    comparisons = [pair.comparison for pair in pairs]
    record = {
        "schema": SCHEMA,
        "oracle": spec,
        "identity": oracle_identity(spec, config.label),
        "rubric": taken.rubric,
        "settings": {key: value for key, value in flat(config, "label").items() if key in settings_of(spec)},
        "asked": len(pairs),
        "fresh": sum(fresh),
        "left_out": dict(taken.left_out),
        "agreement": _agreement(pairs, known, fresh, config.seed),
        "thresholds": _thresholds(pairs, known),
        "judge": statistics_of(comparisons, known).as_facts(),
        "pairs": [_row(*row) for row in zip(pairs, known, fresh, strict=True)],
    }
    notes = _notes(pairs, fresh, taken.seen)
    spent = spending(memory.spent(), config.label.judge)
    for path, earlier in taken.checks:
        if {**earlier, "judge": {**earlier["judge"], **spent}} == {**record, "judge": {**record["judge"], **spent}}:  # type: ignore[dict-item]
            return CheckResult(path, earlier, notes, was_done=True)
    record["judge"] = {**record["judge"], **spent}  # type: ignore[dict-item]
    number = max((int(path.stem.rpartition("-")[2]) for path, _ in taken.checks), default=0) + 1
    path = run.path / f"judge-check-{number:03d}.json"
    jsonl.write_json(path, record)
    return CheckResult(path, record, notes, was_done=False)


def _row(pair: AnsweredPair, judgement: Judgement, is_fresh: bool) -> dict[str, Any]:
    return {
        "pair_id": pair.comparison.pair_id,
        "iteration": pair.iteration,
        "role": pair.role,
        "question": pair.question,
        "people": pair.answer,
        "judge": judgement.preferred,
        "a_first": judgement.a_first,
        "b_first": judgement.b_first,
        "probability": judgement.probability,
        "fresh": is_fresh,
    }


def _agreement(
    taken: Sequence[AnsweredPair], known: Sequence[Judgement], fresh: Sequence[bool], seed: int
) -> dict[str, dict[str, Any]]:
    """By group of pairs; those that were looked at before stand apart where there are any."""
    rows = list(zip(taken, known, fresh, strict=True))
    groups: dict[str, Callable[[AnsweredPair, bool], bool]] = {
        CONTROL: lambda pair, _: pair.role == CONTROL,
        SELECTED: lambda pair, _: pair.role == SELECTED,
        "all": lambda pair, _: True,
    }
    if any(pair.role == LEFT for pair in taken):
        groups[LEFT] = lambda pair, _: pair.role == LEFT
    if not all(fresh):
        groups |= {"fresh": lambda _, is_fresh: is_fresh, "looked_at_before": lambda _, is_fresh: not is_fresh}
    return {
        name: _figures([(pair, judgement) for pair, judgement, is_fresh in rows if belongs(pair, is_fresh)], seed)
        for name, belongs in groups.items()
    }


def _figures(rows: Sequence[tuple[AnsweredPair, Judgement]], seed: int) -> dict[str, Any]:
    """How a judge and people agree on some pairs, and beside it how often people chose the longer response."""
    by_prompt: dict[str, list[tuple[str, str]]] = {}
    for pair, judgement in rows:
        if judgement.preferred is not None:
            of_prompt = by_prompt.setdefault(pair.comparison.response_a.prompt_id, [])
            of_prompt.append((pair.answer, judgement.preferred))
    judged = [both for of_prompt in by_prompt.values() for both in of_prompt]
    named = _both_named(judged)
    longer = [
        (len(pair.comparison.response_a.text) > len(pair.comparison.response_b.text)) == (pair.answer == "a")
        for pair, _ in rows
        if pair.answer != "tie" and len(pair.comparison.response_a.text) != len(pair.comparison.response_b.text)
    ]
    agree, agree_named = sum(a == b for a, b in judged), sum(a == b for a, b in named)
    return {
        "pairs": len(rows),
        "judged": len(judged),
        "without_verdict": len(rows) - len(judged),
        "agree": agree,
        "agree_interval": _interval(agree, len(judged)),
        "kappa": _kappa(judged),
        "kappa_interval": _kappa_interval(by_prompt, seed),
        "both_named": len(named),
        "agree_named": agree_named,
        "named_interval": _interval(agree_named, len(named)),
        "kappa_named": _kappa(named),
        "kappa_named_interval": _kappa_interval(
            {prompt: _both_named(of_prompt) for prompt, of_prompt in by_prompt.items()}, seed
        ),
        "longer_of": len(longer),
        "longer_agrees": sum(longer),
        "longer_interval": _interval(sum(longer), len(longer)),
    }


def _interval(part: int, whole: int) -> list[float] | None:
    return list(wilson_interval(part, whole)) if whole else None


def _both_named(judged: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [both for both in judged if "tie" not in both]


def _kappa(judged: Sequence[tuple[str, str]]) -> float | None:
    return cohen_kappa([person for person, _ in judged], [judge for _, judge in judged])


def _kappa_interval(
    by_prompt: Mapping[str, Sequence[tuple[str, str]]],
    seed: int,
) -> list[float] | None:
    """By drawing prompts anew, since pairs of one prompt share what makes them hard; None where there are few pairs."""
    import numpy as np  # imported on use: commands that only look at a run read this module too

    if sum(map(len, by_prompt.values())) < FEWEST_PAIRS:
        return None
    found = bootstrap_interval(by_prompt, cohen_kappa_of, np.random.default_rng(derive_seed(seed, "agreement")))
    return None if found is None else list(found)


def _thresholds(taken: Sequence[AnsweredPair], known: Sequence[Judgement]) -> list[dict[str, Any]]:
    """What `label.judge.threshold` would leave to the judge under mixed, and how often people said the same.

    Of selected pairs, about which it is asked there, and of pairs at random; pairs that a judge was unsure of tell neither.
    """
    found = []
    for role in (SELECTED, CONTROL):
        of_role = [(pair, one) for pair, one in zip(taken, known, strict=True) if pair.role == role]
        for threshold in THRESHOLDS if of_role else ():
            sure = [(pair.answer, one.preferred) for pair, one in of_role if one.is_sure(threshold)]
            agree = sum(person == judge for person, judge in sure)
            found.append(
                {
                    "role": role,
                    "threshold": threshold,
                    "of": len(of_role),
                    "answers": len(sure),
                    "agree": agree,
                    "interval": _interval(agree, len(sure)),
                }
            )
    return found


def _notes(taken: Sequence[AnsweredPair], fresh: Sequence[bool], seen: Mapping[str, str]) -> list[str]:
    notes = []
    if not any(pair.role == CONTROL for pair in taken):
        notes.append(
            "all of these pairs were selected, which are hard ones: people agree on them less with each other too"
        )
    left = sum(pair.role == LEFT for pair in taken)
    if left:
        notes.append(
            f"{left} of {len(taken)} pairs are what a judge left to people, being unsure of them, so that what it says "
            "there is no measure of what it answers alone; `label --overlap` and `--control` ask people about others too"
        )
    if not all(fresh):
        first = next(seen[pair.question] for pair in taken if pair.question in seen)
        notes.append(
            f"{len(fresh) - sum(fresh)} of {len(fresh)} pairs were looked at before, in `{first}`, with another rubric: on "
            "these agreement may be what the rubric was fitted to; fresh pairs are needed, so let people answer more"
        )
    return notes
