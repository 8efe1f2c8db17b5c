"""What all experiments together say of choosing pairs and of taking random ones: tables of all tasks, and the same as data.

Beside `collect.py`, which writes the tables into the pages and the data into the package, for `activedpo ls methods`.
An experiment is added by a line of TASKS.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from activedpo_cli.experiments.curves import REWARD, SECOND_REWARD, ArmCurve
from activedpo_cli.experiments.report import Analysis, analysis_of
from activedpo_cli.experiments.results import row_of
from activedpo_cli.experiments.spec import ExperimentSpec
from activedpo_cli.reports.page import Table, table
from activedpo_cli.statistics.summaries import MeanInterval

RESULTS = Path(__file__).resolve().parents[1] / "results"


class Task(NamedTuple):
    """One thing that methods were compared on.

    Attributes:
        name: What is learnt, as the overview has it.
        who: Who answers.
        short: What the column of the task is called.
        experiments: Where the runs are. The overview has the first; of a method that is in several the first counts.
        ending: The end of the names of the arms that count, where the experiment has a grid.

    """

    name: str
    who: str
    short: str
    experiments: tuple[str, ...]
    ending: str = ""


TASKS = (
    Task("stories", "a rule, always right", "stories", ("criteria", "methods")),
    Task("stories, smaller steps, fresh seeds", "a rule, always right", "smaller steps", ("smaller-rate",)),
    Task("stories, 15 labels a round, not 30", "a rule, always right", "15 a round", ("budget-15",)),
    Task("stories", "a rule, 1 in 10 wrong", "1 in 10 wrong", ("noise",), "+noise=0.1"),
    Task("stories", "a rule, 3 in 10 wrong", "3 in 10 wrong", ("noise",), "+noise=0.3"),
    Task(
        "stories, fresh seeds", "a rule, drawn, 2 in 10 wrong", "drawn 2 in 10", ("drawn-answers",), "+temperature=0.24"
    ),
    Task(
        "stories, fresh seeds", "a rule, drawn, 3 in 10 wrong", "drawn 3 in 10", ("drawn-answers",), "+temperature=0.5"
    ),
    Task("the built-in task", "a small reward model", "built-in", ("figure-1-tiny",)),
    Task("recorded answers", "a reward model's record", "recorded", ("pool-methods",)),
    Task("SmolLM2, short answers", "a small reward model", "SmolLM2", ("instruct-methods",)),
)
OVERVIEW_TITLE = "Is anything better than random?"
METHODS_TITLE = "Which method should I take?"
OUR_METHOD, BASELINE = "activedpo", "random"
LEVEL = 0.05
YES, PERHAPS, NO_SIGN, PERHAPS_BELOW, BELOW = "yes", "perhaps", "no sign", "perhaps below", "below"
SIDES = {YES: 1, PERHAPS: 1, NO_SIGN: 0, PERHAPS_BELOW: -1, BELOW: -1}
ONE_A_PROMPT = ("select.max_per_prompt", "1")


class Choice(NamedTuple):
    """A method, and the other settings in which its arm differs, with their values as JSON."""

    method: str
    settings: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """As the table of methods has it."""
        shown = [
            "one pair a prompt" if one == ONE_A_PROMPT else f"{one[0].split('.')[-1]} {one[1]}" for one in self.settings
        ]
        return ", ".join([f"`{self.method}`", *shown])


class Finding(NamedTuple):
    """What one experiment says of one choice."""

    task: Task
    experiment: str
    choice: Choice
    curve: ArmCurve
    second: ArmCurve | None
    role: str | None


@cache
def results_of(folder: Path) -> Analysis:
    """What an experiment found, worked out anew from its rows."""
    spec = ExperimentSpec.model_validate(json.loads((folder / "experiment.json").read_text(encoding="utf-8")))
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return analysis_of([row_of(json.loads(line)) for line in lines], spec)


def overview() -> Table:
    """For each task, whether ActiveDPO and the best of the other choices are better than random."""
    head = ["task", "who answers", "seeds", "ActiveDPO better?", "another choice better?", "by the second scorer"]
    return table(OVERVIEW_TITLE, head, [[task.name, task.who, *_against_random(task)] for task in TASKS])


def methods() -> Table:
    """Each method that was tried, against random on each task."""
    found = {(finding.choice, finding.task): finding for finding in findings() if finding.role != "baseline"}
    choices = list(dict.fromkeys(choice for choice, _ in found))
    ceilings = {choice for (choice, _), finding in found.items() if finding.role == "ceiling"}
    choices.sort(key=lambda choice: choice in ceilings)
    seeds = {task: max(len(one.curve.seeds) for (_, of), one in found.items() if of == task) for task in TASKS}
    head = ["method", *(f"{task.short}, {seeds[task]} seeds" for task in TASKS)]
    rows = [[choice.name, *(_told(found.get((choice, task)), seeds[task]) for task in TASKS)] for choice in choices]
    return table(METHODS_TITLE, head, rows)


def evidence() -> str:
    """The same with all numbers, as the package has it."""
    found = [_as_data(finding) for finding in findings() if finding.role != "baseline"]
    tasks = {task.short: {"task": task.name, "who": task.who} for task in TASKS}
    lines = ",\n".join(f"  {json.dumps(entry, ensure_ascii=False)}" for entry in found)
    return (
        f'{{"baseline": "{BASELINE}",\n "tasks": {json.dumps(tasks, ensure_ascii=False)},\n "found": [\n{lines}\n]}}\n'
    )


def findings() -> Iterator[Finding]:
    """What the experiments of each task say of each choice."""
    for task in TASKS:
        seen: set[Choice] = set()
        for name in task.experiments:
            found = results_of(RESULTS / name)
            first, second = _measured(found, task.ending)
            roles = {found.spec.baseline: "baseline", found.spec.ceiling: "ceiling"}
            for arm, settings in found.spec.arms.items():
                choice = _choice(found.spec, settings)
                if arm in first and choice not in seen:
                    seen.add(choice)
                    yield Finding(task, name, choice, first[arm], second.get(arm), roles.get(arm))


def verdict(curve: ArmCurve) -> str:
    """In words: whether the 95 % interval of the difference leaves 0 out, and the test corrected for all arms agrees.

    The ceiling is no choice that the others are corrected for, and its own p counts.
    """
    difference = curve.height_difference
    if difference is None or difference.interval.low <= 0 <= difference.interval.high:
        return NO_SIGN
    p_value = difference.p_value if difference.adjusted is None else difference.adjusted
    if difference.interval.low > 0:
        return YES if p_value < LEVEL else PERHAPS
    return BELOW if p_value < LEVEL else PERHAPS_BELOW


def _choice(spec: ExperimentSpec, settings: dict[str, Any]) -> Choice:
    method = {**spec.settings, **settings}.get("select.method", OUR_METHOD)
    others = sorted((key, json.dumps(value)) for key, value in settings.items() if key != "select.method")
    return Choice(method, tuple(others))


def _against_random(task: Task) -> list[str]:
    found = results_of(RESULTS / task.experiments[0])
    first, second = _measured(found, task.ending)
    spent = first[found.spec.baseline].labels[-1]
    others = first.keys() - {OUR_METHOD, found.spec.baseline, found.spec.ceiling}
    best = max(sorted(others), key=lambda arm: first[arm].height.mean)
    checked = ", ".join(verdict(second[arm]) for arm in (OUR_METHOD, best) if second)
    ours, theirs = _cell(first[OUR_METHOD], spent), _cell(first[best], spent)
    return [str(len(first[OUR_METHOD].seeds)), ours, f"{theirs} (`{best}`)", checked]


def _measured(found: Analysis, ending: str) -> tuple[dict[str, ArmCurve], dict[str, ArmCurve]]:
    """The curves by what counts first and by the second scorer, at one point of the grid, by the arm's name without it."""
    first = REWARD if REWARD in found.curves else next(iter(found.curves))
    chosen = (found.curves.get(measure, ()) for measure in (first, SECOND_REWARD))
    return tuple({c.arm.removesuffix(ending): c for c in curves if c.arm.endswith(ending)} for curves in chosen)


def _cell(curve: ArmCurve, spent: float) -> str:
    """Whether a choice is better than random and, only where that is sure, by how much."""
    said = verdict(curve)
    if said != YES:
        return said
    share = [] if curve.share is None else [f"{100 * curve.share.mean:.0f} %"]
    saved = [] if curve.labels_to_target is None else [f"{spent - curve.labels_to_target:.0f} of {spent:.0f} labels"]
    return ", ".join([f"**{said}**", *share, *saved])


def _told(finding: Finding | None, seeds: int) -> str:
    """The verdict, whether the second scorer agrees, how far of the way to the ceiling it gets, and its seeds if fewer."""
    if finding is None:
        return ""
    said, curve = verdict(finding.curve), finding.curve
    agrees = finding.second is not None and SIDES[said] and SIDES[verdict(finding.second)] == SIDES[said]
    parts = [f"**{said}**" if said in (YES, BELOW) else said]
    if agrees:
        parts.append("✓")
    if curve.share is not None and finding.role != "ceiling":
        parts.append(_percentages(curve.share))
    if len(curve.seeds) < seeds:
        parts.append(f"({len(curve.seeds)} seeds)")
    return " ".join(parts)


def _percentages(share: MeanInterval) -> str:
    mean, *ends = (None if value is None else str(round(100 * value)).replace("-", "−") for value in share)
    return f"{mean} %" if None in ends else f"{mean} % [{', '.join(ends)}]"


def _as_data(finding: Finding) -> dict[str, Any]:
    curve, difference = finding.curve, finding.curve.height_difference
    return {
        "method": finding.choice.method,
        "settings": {key: json.loads(value) for key, value in finding.choice.settings},
        "task": finding.task.short,
        "experiment": finding.experiment,
        "seeds": len(curve.seeds),
        "verdict": verdict(curve),
        "second_scorer": None if finding.second is None else verdict(finding.second),
        "share": None if finding.role == "ceiling" else _rounded(curve.share),
        "difference": _rounded(difference and difference.interval),
        "p": difference and _round(difference.p_value),
        "p_holm": difference and _round(difference.adjusted),
    }


def _rounded(interval: MeanInterval | None) -> list[float | None] | None:
    return interval and [_round(value) for value in interval]


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
