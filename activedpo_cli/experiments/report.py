"""What the finished runs of an experiment say together, as files: numbers, tables, figures and a page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from activedpo_cli.base.numbers import counted
from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.base.version import __version__
from activedpo_cli.engine.parts import Part, ensure
from activedpo_cli.engine.step import Execution
from activedpo_cli.engine.units import AtOnce
from activedpo_cli.experiments.curves import (
    REWARD,
    SECOND_REWARD,
    SHARES,
    TITLES,
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
from activedpo_cli.experiments.folder import RESULTS_NAME, SPEC_NAME, ExperimentFolder
from activedpo_cli.experiments.grid import grid_tables
from activedpo_cli.experiments.results import ResultRow, as_json, read_results
from activedpo_cli.experiments.spec import ExperimentSpec, arms_of, counterparts
from activedpo_cli.experiments.summary import comparisons, experiment_summary
from activedpo_cli.experiments.tables import cost_table, markdown, other_table
from activedpo_cli.reports.page import Section, Table, render_page
from activedpo_cli.reports.plot import Plot
from activedpo_cli.reports.verdict import FEWEST_SEEDS, message_of
from activedpo_cli.reports.wording import listed
from activedpo_cli.store import files, jsonl
from activedpo_cli.store.lock import waiting
from activedpo_cli.store.manifest import Started, digest_of
from activedpo_cli.store.stage_folder import StageFolder

SUMMARY_NAME = "summary.json"
TABLES_NAME = "tables.md"
PAGE_NAME = "index.html"
FIGURES_NAME = "figures"
REPORT_NAME = ".report"
"""The folder in which the report is made; its files are copied to where people look for them."""
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the rows of an experiment say, worked out once for its tables, figures and numbers.

    Attributes:
        curves: By measure the curves of the arms, for every measure that all evaluations have. Iteration 0 is left out of
            a measure that only later ones have.
        at_equal_kl: By reward the arms that can be compared with the baseline at equal KL, for the rewards that every
            evaluation has beside its KL.

    """

    rows: Sequence[ResultRow]
    spec: ExperimentSpec
    curves: dict[str, list[ArmCurve]]
    at_equal_kl: dict[str, dict[str, AtEqualKL]]


@dataclass(frozen=True, kw_only=True)
class ExperimentReport:
    """A report that stands: its page, its first table, its numbers."""

    page: Path
    tables: list[Table]
    summary: dict[str, Any]


def build_experiment_report(folder: ExperimentFolder) -> ExperimentReport:
    """Report on every finished run, and write nothing where that is what the files say already.

    Rows are read under a lock, so that of two processes the one that comes last has read all that there is.
    """
    with waiting(folder.path / ".locks" / "results.lock"):
        return _build(folder)


def _build(folder: ExperimentFolder) -> ExperimentReport:
    rows = read_results(folder, folder.jobs())
    analysis = analysis_of(rows, folder.spec)
    tables = all_tables(analysis)
    summary = summarise(analysis) | {"tables_digest": digest_of(markdown(tables))}

    def make(target: StageFolder) -> dict[str, Any]:
        for name, data in report_contents(folder, analysis, summary, tables).items():
            files.write_bytes(target.path / name, data)
        return {"rows": len(rows)}

    report = Part(
        folder=StageFolder(folder.path / REPORT_NAME),
        lock=folder.path / ".locks" / "report.lock",
        wanted=Started(
            stage="experiment-report",
            stage_version=4,
            iteration=0,
            settings={"activedpo_cli": __version__},
            inputs=report_inputs(rows, folder.spec),
        ),
        open=lambda target: AtOnce(lambda: make(target)),
        is_usable=lambda standing: not standing.missing_outputs(),
        public=lambda name: folder.path / name,
    )
    if report.folder.manifest or not _stands(folder.path, summary):
        ensure(report, Execution(), SilentProgress())
    return ExperimentReport(page=folder.path / PAGE_NAME, tables=tables[:1], summary=summary)


def _stands(folder: Path, summary: Mapping[str, Any]) -> bool:
    """Whether an earlier version, which kept no record of it, left a report of the same numbers."""
    standing = folder / SUMMARY_NAME
    return (folder / PAGE_NAME).is_file() and standing.is_file() and jsonl.read_json(standing) == summary


def report_inputs(rows: Sequence[ResultRow], spec: ExperimentSpec) -> dict[str, str]:
    """Digests of all that the report depends on: the specification, and the rows of each finished run."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        runs.setdefault(f"{row.arm}-s{row.seed}", []).append(as_json(row))
    return {SPEC_NAME: digest_of(spec.model_dump(mode="json"))} | {
        name: digest_of(found) for name, found in runs.items()
    }


def report_contents(
    folder: ExperimentFolder, analysis: Analysis, summary: Mapping[str, Any], tables: Sequence[Table]
) -> dict[str, bytes]:
    """The bytes of all files of the report by their names, `summary.json` last, since it says that the others stand."""
    from activedpo_cli.reports.drawing import draw, draw_panels

    sections = report_sections(analysis, tables)
    plots = [plot for section in sections for plot in section.plots]
    drawn = {plot.name: draw(plot) for plot in plots}
    contents = {f"{FIGURES_NAME}/{name}.{kind}": data for name, kinds in drawn.items() for kind, data in kinds.items()}
    images = {plot.name: draw_panels(plot, drawn[plot.name]["svg"]) for plot in plots}
    top = experiment_summary(folder, analysis.rows, _by_title(analysis.curves))
    page = render_page(f"activedpo experiment: {analysis.spec.title}", top, [], sections, images)
    return contents | {
        PAGE_NAME: page.encode(),
        TABLES_NAME: markdown(tables).encode(),
        RESULTS_NAME: b"".join(jsonl.encode_json(as_json(row)) + b"\n" for row in analysis.rows),
        SUMMARY_NAME: json.dumps(summary, indent=2, allow_nan=False).encode() + b"\n",
    }


def analysis_of(rows: Sequence[ResultRow], spec: ExperimentSpec) -> Analysis:
    """Curves and comparisons of every arm with the baseline and the ceiling at the same point of the grid."""
    baselines, ceilings = counterparts(spec, spec.baseline), counterparts(spec, spec.ceiling)
    used = {name: _rows_with(rows, name) for name in TITLES}
    rewards = [name for name in (REWARD, SECOND_REWARD) if measured(rows, KL) and measured(rows, name)]
    return Analysis(
        rows=rows,
        spec=spec,
        curves={name: analyse(found, name, baselines, ceilings) for name, found in used.items() if found},
        at_equal_kl={name: at_equal_kl(rows, name, baselines, set(ceilings.values())) for name in rewards},
    )


def summarise(analysis: Analysis) -> dict[str, Any]:
    """All numbers of the report, and what they were read from."""
    rows, spec = analysis.rows, analysis.spec
    numbers = {
        "measures": {name: [asdict(curve) for curve in curves] for name, curves in analysis.curves.items()},
        "at_equal_kl": {
            name: {arm: asdict(entry) for arm, entry in found.items()} for name, found in analysis.at_equal_kl.items()
        },
    }
    return {
        "activedpo_cli": __version__,
        "title": spec.title,
        "baseline": spec.baseline,
        "ceiling": spec.ceiling,
        "seeds": {arm: sorted({row.seed for row in rows if row.arm == arm}) for arm in arms_in(rows)},
        "evaluations_digest": digest_of([[row.arm, row.seed, row.iteration, row.digest] for row in rows]),
        **json.loads(json.dumps(numbers)),  # tuples as lists, as they are when the file is read again
    }


def all_tables(analysis: Analysis) -> list[Table]:
    """The tables of the page and of `tables.md`, the most telling first."""
    rows, spec, arms = analysis.rows, analysis.spec, arms_in(analysis.rows)
    found = _by_title(analysis.curves)
    tables = [
        *(curve_table(title, curves, spec.baseline) for title, curves in found.items()),
        *grid_tables(list(found.items()), spec),
        *(point_table(title, curves) for title, curves in found.items()),
        distance_table(_by_title(analysis.at_equal_kl), rows),
        other_table(rows, arms),
        cost_table(rows, arms),
    ]
    return [entry for entry in tables if entry.rows]


def report_sections(analysis: Analysis, tables: Sequence[Table]) -> list[Section]:
    """The page: curves with the tables that compare them, then distance and other measures, cost, and how to read it."""
    plots = {plot.name: plot for plot in all_plots(analysis)}
    main = len(analysis.curves)
    compared = [plots[name] for name in ("differences", "reward") if name in plots]
    sections = [
        Section(anchor="results", title="Reward against labels", plots=compared, tables=list(tables[:main])),
        Section(
            anchor="distance",
            title="Distance, length and cost",
            plots=[plot for name, plot in plots.items() if name == "distance"],
            tables=list(tables[main:]),
        ),
        Section(anchor="reading", title="How to read this page", sentences=report_sentences(analysis)),
    ]
    return [section for section in sections if section.plots or section.tables or section.sentences]


def all_plots(analysis: Analysis) -> list[Plot]:
    """The figures."""
    found, baseline = list(_by_title(analysis.curves).items()), analysis.spec.baseline
    plots = [curve_plot(found)]
    if analysis.at_equal_kl:
        plots.append(distance_plot(analysis.rows, {name: TITLES[name] for name in analysis.at_equal_kl}))
    if baseline is not None and any(row.differences for _, curves in found for row in curves):
        compared = comparisons(found[0][1], analysis.spec, is_share=found[0][0] in SHARES)
        plots.append(difference_plot(found, baseline, message_of(compared, baseline) if compared else ""))
    return plots


def _by_title(found: Mapping[str, Value]) -> dict[str, Value]:
    return {TITLES[name]: value for name, value in found.items()}


def _rows_with(rows: Sequence[ResultRow], measure: str) -> list[ResultRow]:
    """All rows where all have the measure, all but iteration 0 where only these have it, else none."""
    later = [row for row in rows if row.iteration]
    return list(rows) if measured(rows, measure) else later if measured(later, measure) else []


def report_sentences(analysis: Analysis) -> list[str]:
    """What a reader has to know beside the tables: who finished, what p and intervals are of, and what is corrected."""
    rows, spec = analysis.rows, analysis.spec
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
    if SHARES & _by_title(analysis.curves).keys():
        sentences.append(
            "Differences between shares, such as win rates, are in percentage points, also where they have a %."
        )
    first = next(iter(analysis.curves.values()), [])
    compared = sum(row.height_difference is not None and row.height_difference.adjusted is not None for row in first)
    if compared:
        sentences.append(
            "Every interval covers 95 % for its number alone, over seeds. p is that of a two-sided sign-flip test of the "
            f"mean height of the curve; in brackets by Holm for {counted(compared, 'comparison')}, that of a ceiling left "
            "out. Each measure is corrected by itself for its many arms, and nothing for looking at several measures. "
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
    if any(analysis.at_equal_kl.values()):
        sentences.append(
            "At equal KL an arm is compared with the baseline where both are equally far from the reference, over those "
            "evaluations of either whose KL lies within the other's; its p is that of these differences, not of the height. "
            "An arm that is slower comes to the same KL with more labels."
        )
    if spec.ceiling is not None and any(arm.partition("+")[0] == spec.ceiling for arm in counts):
        sentences.append(f"{spec.ceiling} reads the answers before it buys them: it is a ceiling, not a method.")
    return sentences
