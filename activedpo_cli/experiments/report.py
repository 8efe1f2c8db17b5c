"""What the finished runs of an experiment say together, as files: numbers, tables, figures and a page."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from activedpo_cli import __version__
from activedpo_cli.experiments.curves import (
    REWARD,
    SECOND_REWARD,
    ArmCurve,
    analyse,
    arms_in,
    curve_plot,
    curve_table,
    difference_plot,
    measured,
    point_table,
)
from activedpo_cli.experiments.distance import KL, AtEqualKL, at_equal_kl, distance_plot, distance_table
from activedpo_cli.experiments.folder import RESULTS_NAME, ExperimentFolder
from activedpo_cli.experiments.grid import grid_tables
from activedpo_cli.experiments.results import ResultRow, as_json, read_results
from activedpo_cli.experiments.spec import ExperimentSpec, arms_of, counterparts
from activedpo_cli.experiments.tables import cost_table, markdown, other_table
from activedpo_cli.reports.page import Section, Table
from activedpo_cli.reports.plot import Plot
from activedpo_cli.reports.wording import listed
from activedpo_cli.store import files, jsonl
from activedpo_cli.store.lock import waiting
from activedpo_cli.store.manifest import digest_of

SUMMARY_NAME = "summary.json"
TABLES_NAME = "tables.md"
PAGE_NAME = "index.html"
FIGURES_NAME = "figures"
FEWEST_SEEDS = 6
"""With fewer no sign-flip test reaches 0.05."""
TITLES = {
    REWARD: "Reward by the scorer that answers",
    SECOND_REWARD: "Reward by the second scorer",
    "win_rate": "Win rate against the initial model",
    "preference_accuracy": "Accuracy on held-out preferences",
}


@dataclass(frozen=True, kw_only=True)
class ExperimentReport:
    """A report that stands: its page, its first table, its numbers."""

    page: Path
    tables: list[Table]
    summary: dict[str, Any]


def build_experiment_report(folder: ExperimentFolder) -> ExperimentReport:
    """Report on every finished run, and write nothing where that is what the files say already."""
    page = folder.path / PAGE_NAME
    with waiting(folder.path / ".locks" / "report.lock"):
        rows = read_results(folder, folder.jobs())
        tables = all_tables(rows, folder.spec)
        summary = summarise(rows, folder.spec) | {"tables_digest": digest_of(markdown(tables))}
        if not page.is_file() or _standing(folder.path) != summary:
            _write(folder.path, rows, folder.spec, summary, tables)
    return ExperimentReport(page=page, tables=tables[:1], summary=summary)


def summarise(rows: Sequence[ResultRow], spec: ExperimentSpec) -> dict[str, Any]:
    """All numbers of the report, and what they were read from."""
    return {
        "activedpo_cli": __version__,
        "title": spec.title,
        "baseline": spec.baseline,
        "ceiling": spec.ceiling,
        "seeds": {arm: sorted({row.seed for row in rows if row.arm == arm}) for arm in arms_in(rows)},
        "evaluations_digest": digest_of([[row.arm, row.seed, row.iteration, row.digest] for row in rows]),
        "measures": {
            name: [_as_json(curve) for curve in _analysed(used, name, spec)]
            for name in TITLES
            if (used := _rows_with(rows, name))
        },
        "at_equal_kl": {
            name: {arm: _as_json(entry) for arm, entry in _at_equal_kl(rows, name, spec).items()}
            for name in _against_kl(rows)
        },
    }


def all_tables(rows: Sequence[ResultRow], spec: ExperimentSpec) -> list[Table]:
    """The tables of the page and of `tables.md`, the most telling first."""
    found = _measured(rows, spec)
    arms = arms_in(rows)
    tables = [
        *(curve_table(title, curves, spec.baseline) for title, curves in found),
        *grid_tables(found, spec),
        *(point_table(f"{title}, after each iteration", curves) for title, curves in found),
        distance_table(
            {title: _at_equal_kl(rows, measure, spec) for measure, title in _against_kl(rows).items()}, rows
        ),
        other_table(rows, arms),
        cost_table(rows, arms),
    ]
    return [entry for entry in tables if entry.rows]


def all_plots(rows: Sequence[ResultRow], spec: ExperimentSpec) -> list[Plot]:
    """The figures."""
    found = _measured(rows, spec)
    plots = [curve_plot(found), *([distance_plot(rows, against)] if (against := _against_kl(rows)) else [])]
    if spec.baseline is None or not any(row.differences for _, curves in found for row in curves):
        return plots
    return [*plots, difference_plot(found, spec.baseline)]


def _measured(rows: Sequence[ResultRow], spec: ExperimentSpec) -> list[tuple[str, list[ArmCurve]]]:
    """The curves in every measure that all evaluations have; iteration 0 is left out where only later ones have it."""
    used = {name: _rows_with(rows, name) for name in TITLES}
    return [(title, _analysed(used[name], name, spec)) for name, title in TITLES.items() if used[name]]


def _against_kl(rows: Sequence[ResultRow]) -> dict[str, str]:
    """The rewards, with their titles, that every evaluation has beside its KL."""
    rewards = (REWARD, SECOND_REWARD) if measured(rows, KL) else ()
    return {measure: TITLES[measure] for measure in rewards if measured(rows, measure)}


def _rows_with(rows: Sequence[ResultRow], measure: str) -> list[ResultRow]:
    """All rows where all have the measure, all but iteration 0 where only these have it, else none."""
    later = [row for row in rows if row.iteration]
    return list(rows) if measured(rows, measure) else later if measured(later, measure) else []


def _analysed(rows: Sequence[ResultRow], measure: str, spec: ExperimentSpec) -> list[ArmCurve]:
    return analyse(rows, measure, counterparts(spec, spec.baseline), counterparts(spec, spec.ceiling))


def _at_equal_kl(rows: Sequence[ResultRow], measure: str, spec: ExperimentSpec) -> dict[str, AtEqualKL]:
    ceilings = set(counterparts(spec, spec.ceiling).values())
    return at_equal_kl(rows, measure, counterparts(spec, spec.baseline), ceilings)


def _as_json(entry: ArmCurve | AtEqualKL) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(asdict(entry)))
    return found


def _standing(folder: Path) -> dict[str, Any] | None:
    path = folder / SUMMARY_NAME
    return jsonl.read_json(path) if path.is_file() else None


def _write(
    folder: Path, rows: Sequence[ResultRow], spec: ExperimentSpec, summary: dict[str, Any], tables: Sequence[Table]
) -> None:
    from activedpo_cli.reports.drawing import draw
    from activedpo_cli.reports.page import render_page

    plots = all_plots(rows, spec)
    drawn = {plot.name: draw(plot) for plot in plots}
    for name, kinds in drawn.items():
        for kind, data in kinds.items():
            files.write_bytes(folder / FIGURES_NAME / f"{name}.{kind}", data)
    section = Section(
        anchor="results", title=spec.title, sentences=report_sentences(rows, spec), plots=plots, tables=list(tables)
    )
    page = render_page(
        f"activedpo experiment: {spec.title}",
        [spec.question.rstrip(".")],
        [section],
        {n: k["svg"] for n, k in drawn.items()},
    )
    files.write_bytes(folder / PAGE_NAME, page.encode())
    files.write_bytes(folder / TABLES_NAME, markdown(tables).encode())
    lines = [jsonl.encode_json(as_json(row)) + b"\n" for row in rows]
    files.write_bytes(folder / RESULTS_NAME, b"".join(lines))
    jsonl.write_json(folder / SUMMARY_NAME, summary)  # last: it says that the others stand


def report_sentences(rows: Sequence[ResultRow], spec: ExperimentSpec) -> list[str]:
    """What a reader has to know beside the tables: who finished, what p and intervals are of, and what is corrected."""
    counts = {arm: len({row.seed for row in rows if row.arm == arm}) for arm in arms_in(rows)}
    finished = listed([f"{arm} with {count} seeds" for arm, count in counts.items()])
    sentences = [
        f"The experiment has {len(spec.seeds)} seeds and {len(arms_of(spec))} arms. Finished runs: {finished}. Runs of one "
        "seed whose settings allow it begin with the same prompts, held-out prompts, adapter and pool.",
        "The first scorer is that of the evaluation; where the labels come from it too, its reward is circular.",
    ]
    if measured([row for row in rows if row.iteration], SECOND_REWARD):
        sentences.append(
            "The second scorer gave no labels; how far it measures the same thing is for the reader to judge."
        )
    compared = len(_compared(rows, spec))
    if compared:
        sentences.append(
            "Every interval covers 95 % for its number alone, over seeds. p is that of a two-sided sign-flip test of the "
            f"mean height of the curve; in brackets by Holm for {compared} comparisons, that of a ceiling left out. "
            "Each measure is corrected by itself for its many arms, and nothing for looking at several measures. "
            "Differences at single numbers of labels are not corrected for looking at several, nor is anything for looking "
            "while runs were still being added."
        )
        fewest = min(counts.values())
        sentences.append(
            f"Of an arm with {fewest} seeds, the fewest here, p can't be below {2 / 2**fewest:.3g}"
            + (
                ", and its interval can leave 0 out by luck: so few tell nothing, whatever the interval looks like."
                if fewest < FEWEST_SEEDS
                else "."
            )
        )
    if any(_at_equal_kl(rows, measure, spec) for measure in _against_kl(rows)):
        sentences.append(
            "At equal KL an arm is compared with the baseline where both are equally far from the reference, over those "
            "evaluations of either whose KL lies within the other's; its p is that of these differences, not of the height. "
            "An arm that is slower comes to the same KL with more labels."
        )
    if spec.ceiling is not None and any(arm.partition("+")[0] == spec.ceiling for arm in counts):
        sentences.append(f"{spec.ceiling} reads the answers before it buys them: it is a ceiling, not a method.")
    return sentences


def _compared(rows: Sequence[ResultRow], spec: ExperimentSpec) -> list[ArmCurve]:
    """The arms whose p is corrected, in the first measure."""
    measures = _measured(rows, spec)
    curves = measures[0][1] if measures else []
    return [curve for curve in curves if curve.height_difference and curve.height_difference.adjusted is not None]
