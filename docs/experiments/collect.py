"""Keep what an experiment found beside the docs, and write its tables into the pages that show them.

    python docs/experiments/collect.py runs/methods …     copies results, summary, tables and figures to docs/results/
    python docs/experiments/collect.py                    only writes the tables of docs/results/ into the pages

A page shows a table between `<!-- results NAME: TITLE -->` and `<!-- end of results -->`; what stands between is replaced.
`overview` is the table of all tasks, which are listed below; any other name is that of an experiment.
"""

import json
import re
import shutil
import sys
from functools import cache
from pathlib import Path

from activedpo_cli.experiments.curves import REWARD, SECOND_REWARD, ArmCurve
from activedpo_cli.experiments.report import Analysis, all_tables, analysis_of
from activedpo_cli.experiments.results import row_of
from activedpo_cli.experiments.spec import ExperimentSpec
from activedpo_cli.experiments.tables import markdown
from activedpo_cli.reports.page import Table, table

DOCS = Path(__file__).resolve().parents[1]
RESULTS = DOCS / "results"
FIGURES = ("reward", "differences", "distance")
KEPT = ("experiment.json", "results.jsonl", "summary.json", *(f"figures/{name}.svg" for name in FIGURES))
BLOCK = re.compile(r"(<!-- results (?P<name>[\w.-]+): (?P<title>[^\n]+) -->\n).*?(<!-- end of results -->)", re.DOTALL)


OVERVIEW, OVERVIEW_TITLE = "overview", "Is anything better than random?"
OUR_METHOD = "activedpo"
LEVEL, BETTER = 0.05, "yes"
TASKS = (
    ("stories", "a rule, always right", "criteria", ""),
    ("stories, smaller steps, fresh seeds", "a rule, always right", "smaller-rate", ""),
    ("stories, 15 labels a round, not 30", "a rule, always right", "budget-15", ""),
    ("stories", "a rule, 1 in 10 wrong", "noise", "+noise=0.1"),
    ("stories", "a rule, 3 in 10 wrong", "noise", "+noise=0.3"),
    ("stories", "a rule, drawn by Bradley–Terry", "bernoulli", ""),
    ("the built-in task", "a small reward model", "figure-1-tiny", ""),
    ("recorded answers", "a reward model's record", "pool-methods", ""),
)
"""Rows of the overview: task, who answers, the experiment, and the end of the names of the arms that count."""


@cache
def results_of(folder: Path) -> Analysis:
    """What an experiment found, worked out anew from its rows."""
    spec = ExperimentSpec.model_validate(json.loads((folder / "experiment.json").read_text(encoding="utf-8")))
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return analysis_of([row_of(json.loads(line)) for line in lines], spec)


@cache
def tables_of(folder: Path) -> dict[str, Table]:
    """The tables of an experiment, or those that a script left, by title."""
    if folder.name == OVERVIEW:
        return {OVERVIEW_TITLE: overview()}
    if (left := folder / "tables.json").is_file():
        return {entry["title"]: Table(**entry) for entry in json.loads(left.read_text(encoding="utf-8"))}
    return {table.title: table for table in all_tables(results_of(folder))}


def overview() -> Table:
    """For each task, whether ActiveDPO and the best of the other choices are better than random."""
    head = ["task", "who answers", "seeds", "ActiveDPO better?", "another choice better?", "by the second scorer"]
    return table(OVERVIEW_TITLE, head, [[task, who, *_against_random(*place)] for task, who, *place in TASKS])


def _against_random(name: str, ending: str) -> list[str]:
    found = results_of(RESULTS / name)
    first, second = (_arms(found, measure, ending) for measure in (REWARD, SECOND_REWARD))
    first = first or _arms(found, next(iter(found.curves)), ending)
    spent = first[found.spec.baseline].labels[-1]
    others = first.keys() - {OUR_METHOD, found.spec.baseline, found.spec.ceiling}
    best = max(sorted(others), key=lambda arm: first[arm].height.mean)
    checked = ", ".join(_verdict(second[arm]) for arm in (OUR_METHOD, best) if second)
    ours, theirs = _cell(first[OUR_METHOD], spent), _cell(first[best], spent)
    return [str(len(first[OUR_METHOD].seeds)), ours, f"{theirs} (`{best}`)", checked]


def _arms(found: Analysis, measure: str, ending: str) -> dict[str, ArmCurve]:
    """The curves of one measure at one point of the grid, by the name of the arm without it."""
    curves = found.curves.get(measure, ())
    return {curve.arm.removesuffix(ending): curve for curve in curves if curve.arm.endswith(ending)}


def _cell(curve: ArmCurve, spent: float) -> str:
    """Whether a choice is better than random and, only where that is sure, by how much."""
    verdict = _verdict(curve)
    if verdict != BETTER:
        return verdict
    share = [] if curve.share is None else [f"{100 * curve.share.mean:.0f} %"]
    saved = [] if curve.labels_to_target is None else [f"{spent - curve.labels_to_target:.0f} of {spent:.0f} labels"]
    return ", ".join([f"**{verdict}**", *share, *saved])


def _verdict(curve: ArmCurve) -> str:
    """In words: whether the 95 % interval of the difference leaves 0 out, and the test corrected for all arms agrees."""
    difference = curve.height_difference
    if difference is None or difference.interval.low <= 0 <= difference.interval.high:
        return "no sign"
    is_sure = difference.adjusted is not None and difference.adjusted < LEVEL
    side = BETTER if difference.interval.low > 0 else "worse"
    return side if is_sure else f"perhaps {side}".removesuffix(f" {BETTER}")


def filled(page: str) -> str:
    """A page with every block as the results have it; raises KeyError for a name or title that there is not."""

    def block(match: re.Match[str]) -> str:
        table = tables_of(RESULTS / match["name"])[match["title"]]
        body = markdown([table]).split("\n\n", 1)[1]
        return f"{match[1]}\n{body}\n{match[4]}"

    return BLOCK.sub(block, page)


def pages() -> list[Path]:
    """The pages that may show results."""
    return [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


def collect(source: Path) -> None:
    """Copy what is kept of an experiment; its figures are there where it has them."""
    for name in KEPT:
        if (source / name).is_file():
            destination = RESULTS / source.name / name
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, destination)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        collect(Path(argument))
    for path in pages():
        before = path.read_text(encoding="utf-8")
        if (after := filled(before)) != before:
            path.write_text(after, encoding="utf-8")
            print(f"wrote the tables of {path.relative_to(DOCS.parent)}")
