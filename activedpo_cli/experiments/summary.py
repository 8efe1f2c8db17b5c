"""What stands on top of an experiment's page: what was run, how the arms end, whether they beat the baseline, what next."""

import math
import shlex
from collections.abc import Mapping, Sequence

from activedpo_cli.base.numbers import counted
from activedpo_cli.experiments.curves import SHARES, ArmCurve, measure_in_words
from activedpo_cli.experiments.folder import SPEC_NAME, ExperimentFolder
from activedpo_cli.experiments.results import ResultRow
from activedpo_cli.experiments.spec import ExperimentSpec, arms_of, counterparts
from activedpo_cli.reports.page import Answer, Summary
from activedpo_cli.reports.summary import CAME_OUT, NEXT, RAN
from activedpo_cli.reports.verdict import HOW_COMPARED, LEVEL, Comparison, headline, message_of, sentence_of
from activedpo_cli.reports.wording import listed

BEST = 3
"""Arms whose ends the summary names, beside the baseline, and whose comparisons it has in numbers."""
Curves = Mapping[str, Sequence[ArmCurve]]
"""The arms' curves by the title of each measure."""


def experiment_summary(folder: ExperimentFolder, rows: Sequence[ResultRow], curves: Curves) -> Summary:
    """The summary of the finished runs, which `rows` are the evaluations of."""
    spec = folder.spec
    found = [
        (_within(title), told)
        for title, arms in curves.items()
        if (told := comparisons(arms, spec, is_share=title in SHARES))
    ]
    answers = [Answer(RAN, _what_was_run(spec, rows)), Answer(CAME_OUT, _ends(spec, curves))]
    if spec.baseline is not None:
        answers.append(Answer(f"Better than {spec.baseline}?", _against_baseline(found, spec.baseline)))
    return Summary(
        message=headline(found, str(spec.baseline)) if found else _message_without_comparison(spec, curves),
        answers=[*answers, _what_next(folder, rows, found[0][1] if found else [])],
    )


def comparisons(curves: Sequence[ArmCurve], spec: ExperimentSpec, *, is_share: bool = False) -> list[Comparison]:
    """The arms against their baseline in one measure; a ceiling is no method, has no corrected p and is left out."""
    seeds = {row.arm: set(row.seeds) for row in curves}
    baselines = counterparts(spec, spec.baseline)
    return [
        Comparison(
            name=row.arm,
            interval=difference.interval,
            seeds=len(seeds[row.arm] & seeds[baselines[row.arm]]),
            p_value=difference.adjusted,
            is_share=is_share,
        )
        for row in curves
        if (difference := row.height_difference) is not None and difference.adjusted is not None
    ]


def _within(title: str) -> str:
    """A measure's title within a sentence."""
    return title[0].lower() + title[1:]


def _against_baseline(found: Sequence[tuple[str, Sequence[Comparison]]], base: str) -> list[str]:
    """The first measure in numbers, of many arms those with a verdict and the highest; of other measures the message."""
    if not found:
        return ["No arm has two seeds in common with it yet"]
    (title, first), *others = found
    ordered = sorted(first, key=lambda row: (row.verdict not in ("better", "worse"), -row.interval.mean))
    sentences = [sentence_of(row, base, title) for row in ordered[:BEST]]
    if len(ordered) > BEST:
        sentences.append(f"The tables below have the numbers of the other {len(ordered) - BEST}")
    return [*sentences, *(f"In {name}: {message_of(rows, base)}" for name, rows in others), HOW_COMPARED]


def _message_without_comparison(spec: ExperimentSpec, curves: Curves) -> str:
    if not curves:
        return f"Of {counted(len(spec.seeds), 'seed')} none has finished"
    best = max(next(iter(curves.values())), key=lambda row: row.mean[-1].mean)
    if spec.baseline is None:
        return f"{best.arm} ends highest; no baseline is named, so no difference is tested"
    return f"Nothing to tell from {spec.baseline} yet: no arm has two seeds in common with it"


def _what_was_run(spec: ExperimentSpec, rows: Sequence[ResultRow]) -> list[str]:
    arms = arms_of(spec)
    done, wanted = len(_finished(rows)), len(arms) * len(spec.seeds)
    size = f"{counted(len(arms), 'arm')} × {counted(len(spec.seeds), 'seed')}, {counted(spec.iterations, 'iteration')} each"
    ready = "all runs finished" if done == wanted else f"{done} of {wanted} runs finished"
    return [*filter(None, [spec.question.strip()]), f"{size}: {ready}"]


def _ends(spec: ExperimentSpec, curves: Curves) -> list[str]:
    """How the arms end in the first measure, the best three of them and the baseline."""
    title, found = next(iter(curves.items()), ("", []))
    ordered = sorted(found, key=lambda row: -row.mean[-1].mean)
    shown = [row for place, row in enumerate(ordered) if place < BEST or row.arm == spec.baseline]
    ceilings = set(counterparts(spec, spec.ceiling).values())
    names = [f"{row.arm} (a ceiling, not a method)" if row.arm in ceilings else row.arm for row in shown]
    ends = [f"{name}: {measure_in_words(title, row.mean[-1])}" for name, row in zip(names, shown, strict=True)]
    if not ends:
        return ["No run has finished"]
    return [*ends, f"{title}, at the end; brackets are 95 % intervals over seeds, each for its arm alone"]


def _what_next(folder: ExperimentFolder, rows: Sequence[ResultRow], found: Sequence[Comparison]) -> Answer:
    spec, path = folder.spec, str(folder.path)
    if len(_finished(rows)) < len(arms_of(spec)) * len(spec.seeds):
        words = ["activedpo", "experiment", f"{path}/{SPEC_NAME}", "--output", path]
        words += ["--runs-from", str(folder.shared)] if folder.shared != folder.path else []
        return Answer(NEXT, ["Do the runs that are not finished"], " ".join(map(shlex.quote, words)))
    if spec.baseline is None:
        return Answer(NEXT, ["Name a baseline in the specification: it is then compared with, at equal seeds"])
    fewest = math.ceil(math.log2(2 * max(1, len(found)) / LEVEL))
    if not found or all(row.verdict == "too few" for row in found):
        sentence = f"Add seeds to the specification: with {counted(max(1, len(found)), 'comparison')} it takes {fewest}"
        return Answer(NEXT, [sentence], f"activedpo experiment SPEC.yaml --output {shlex.quote(path)}")
    best = max(found, key=lambda row: (row.verdict == "better", row.interval.mean)).name
    names = [best, counterparts(spec, spec.baseline)[best]]
    both = [str(job.path) for job in folder.jobs(names, spec.seeds[:1])]
    return Answer(
        NEXT,
        [f"See what {listed(names)} picked and answered, side by side"],
        shlex.join(["activedpo", "report", *both]),
    )


def _finished(rows: Sequence[ResultRow]) -> set[tuple[str, int]]:
    return {(row.arm, row.seed) for row in rows}
