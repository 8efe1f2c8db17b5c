"""What the labels were like: outcomes, score gaps, a taste for length, time."""

from collections.abc import Sequence

from activedpo_cli.reports.boxes import box_series
from activedpo_cli.reports.label_data import Labels
from activedpo_cli.reports.plot import Panel, Plot, Series
from activedpo_cli.reports.run_data import RunData
from activedpo_cli.reports.run_looks import look_note, run_looks
from activedpo_cli.reports.section import Section, Table, table
from activedpo_cli.reports.wording import median_and_range, share_with_interval


def label_section(runs: Sequence[RunData]) -> Section | None:
    """Diagnostics of the labels; None where none were given."""
    if not any(run.labels for run in runs):
        return None
    plots = [_gap_plot(runs), _length_plot(runs), _time_plot(runs)]
    return Section(
        anchor="labels",
        title="Labels",
        sentences=[] if _has_gaps(runs) else ["The oracle gave no scores, so there are no score gaps."],
        run_sentences=_run_sentences(runs),
        plots=[plot for plot in plots if plot.panels],
        tables=[_table(runs)],
    )


def _has_gaps(runs: Sequence[RunData]) -> bool:
    return any(row.gaps for run in runs for row in run.labels)


def _run_sentences(runs: Sequence[RunData]) -> list[str]:
    sentences = []
    for run in runs:
        spent = sum(row.labels_spent for row in run.labels)
        chosen = sum(row.counts["chosen"] for row in run.labels)
        if run.labels:
            oracles = ", ".join(dict.fromkeys(row.oracle for row in run.labels))
            sentences.append(
                f"{run.name}: {spent} labels spent, of which {chosen} name a better response; given by {oracles}."
            )
    return sentences


def _gap_plot(runs: Sequence[RunData]) -> Plot:
    panels = []
    for run in runs:
        rows = [(row, row.gaps) for row in run.labels if row.gaps]
        pool = [(row, row.pool_gaps) for row in run.labels if row.pool_gaps]
        series = [
            box_series(
                label,
                [float(row.iteration) for row, _ in found],
                [gaps for _, gaps in found],
                _sources(run, found),
                is_background=grey,
            )
            for label, found, grey in (("labelled pairs", rows, False), ("candidates", pool, True))
            if found
        ]
        panels.append(
            Panel(
                title=run.name,
                x_label="iteration",
                y_label="|score a − score b|",
                kind="boxes",
                series=series,
                y_from_zero=True,
            )
        )
    return Plot(
        name="score-gap",
        title="How clear the answers were",
        caption="Difference of the oracle's scores of a labelled pair's two responses, in the oracle's own unit. Small gaps "
        "are hard or pointless questions, large ones easy. Candidates stand beside them where their scores came with the "
        "responses. Boxes hold the middle half, bars are medians, whiskers go from 5 % to 95 %.",
        alternative="Boxes of score gaps by iteration.",
        has_one_scale=len({row.oracle for run in runs for row in run.labels}) == 1,
        panels=[panel for panel in panels if panel.series],
    )


def _sources(run: RunData, rows: Sequence[tuple[Labels, object]]) -> list[str]:
    return [f"{run.name}/{row.source}" for row, _ in rows]


def _length_plot(runs: Sequence[RunData]) -> Plot:
    series = []
    looks = run_looks(runs)
    for run, look in zip(runs, looks, strict=True):
        rows = [(row, row.longer_won) for row in run.labels if row.longer_won]
        if rows:
            series.append(
                Series(
                    label=run.name,
                    x=[float(row.iteration) for row, _ in rows],
                    y=[won.mean for _, won in rows],
                    low=[won.low for _, won in rows],
                    high=[won.high for _, won in rows],
                    sources=_sources(run, rows),
                    colour=look.colour,
                    group=look.group,
                )
            )
    panel = Panel(
        title="the longer response won",
        x_label="iteration",
        y_label="share of labels",
        series=series,
        level=0.5,
        is_share=True,
    )
    return Plot(
        name="length-preference",
        title="Do the labels prefer length?",
        caption="Share of labels whose chosen response has more tokens than the rejected one; pairs of equal length are "
        "left out. At the dotted line length says nothing. The band is Wilson's 95 % interval over labels."
        + look_note(looks),
        alternative="Share of labels won by the longer response, by iteration.",
        panels=[panel] if series else [],
    )


def _time_plot(runs: Sequence[RunData]) -> Plot:
    panels = []
    for run in runs:
        rows = [(row, row.seconds) for row in run.labels if row.seconds]
        if rows:
            boxes = box_series(
                "seconds", [float(row.iteration) for row, _ in rows], [s for _, s in rows], _sources(run, rows)
            )
            panels.append(
                Panel(
                    title=run.name,
                    x_label="iteration",
                    y_label="seconds per label",
                    kind="boxes",
                    series=[boxes],
                    y_from_zero=True,
                )
            )
    return Plot(
        name="label-seconds",
        title="Seconds per label",
        caption="Time that people took for an answer, where it was recorded. Boxes hold the middle half, bars are medians, "
        "whiskers go from 5 % to 95 %.",
        alternative="Boxes of seconds per label by iteration.",
        panels=panels,
    )


def _table(runs: Sequence[RunData]) -> Table:
    columns = ["run", "iteration", "spent", "chosen", "tie", "both bad", "skipped", "unanswered", "score gap"]
    columns += ["score gap of candidates", "longer won", "seconds per label"]
    return table(
        "Every iteration's labels; medians with the middle half in brackets",
        columns,
        [[run.name, *_cells(row)] for run in runs for row in run.labels],
    )


def _cells(row: Labels) -> list[str]:
    won = row.longer_won
    return [
        str(row.iteration),
        str(row.labels_spent),
        *(str(count) for count in row.counts.values()),
        str(row.unanswered or ""),
        median_and_range(row.gaps, 3),
        median_and_range(row.pool_gaps, 3),
        f"{share_with_interval(*won)} of {row.unequal_pairs}" if won else "",
        median_and_range(row.seconds, 1),
    ]
