"""What was answered, and what the labels were like: outcomes, score gaps, a taste for length, time."""

from collections.abc import Sequence

from activedpo_cli.base.records import OutcomeRow, Response
from activedpo_cli.label.agreement import WHY_SELECTED_DIFFER, Agreement, agreement
from activedpo_cli.label.earlier_answers import bought
from activedpo_cli.label.judging import described
from activedpo_cli.reports.agreement import BETWEEN, PEOPLE, rows_between, rows_of_people
from activedpo_cli.reports.messages import gap_message, longer_won_message, seconds_message
from activedpo_cli.reports.page import Section, Table, table
from activedpo_cli.reports.plot import CANDIDATES, Panel, Plot, boxes_by_iteration, interval_series
from activedpo_cli.reports.run_data import Labels, RunData
from activedpo_cli.reports.seeds import look_note, run_looks
from activedpo_cli.reports.selection import Couple
from activedpo_cli.reports.sources import is_outdated
from activedpo_cli.reports.wording import median_and_range, share_with_interval
from activedpo_cli.statistics.summaries import five_numbers, win_rate_interval
from activedpo_cli.store.manifest import Manifest
from activedpo_cli.store.run import Run

RECORDED = "recorded"
HUMAN = "human"
OUTCOMES = ("chosen", "tie", "both_bad", "skip")


def read_labels(
    run: Run,
    iteration: int,
    manifests: dict[str, Manifest],
    responses: Sequence[Response] | None,
    couples: Sequence[Couple] | None,
) -> Labels | None:
    """The answers of an iteration, None where *label* is not finished.

    Responses and candidates are left out where the answers are about others that had the same ids.
    """
    name = f"iter-{iteration:03d}/label"
    manifest = manifests.get(name)
    if manifest is None:
        return None
    if any(is_outdated(manifest, f"iter-{iteration:03d}/{stage}", manifests) for stage in ("generate", "select")):
        responses = couples = None
    folder = run.stage("label", iteration)
    rows = folder.read_rows("outcomes.jsonl", OutcomeRow)
    gaps = [abs(row.score_a - row.score_b) for row in rows if row.score_a is not None and row.score_b is not None]
    wins = _longer_wins(rows, {row.response_id: len(row.token_ids) for row in responses or ()})
    answers = bought(run, iteration, folder.label_log()).values()
    times = [label.seconds for label in answers if label.seconds is not None]
    return Labels(
        iteration=iteration,
        source=name,
        oracle=str(manifest.settings.get("label.oracle")),
        counts={outcome: sum(row.outcome == outcome for row in rows) for outcome in OUTCOMES},
        unanswered=int(manifest.summary.get("unanswered", 0)),
        labels_spent=int(manifest.summary["labels_spent"]),
        gaps=five_numbers(gaps),
        scored_pairs=len(gaps),
        pool_gaps=five_numbers(_pool_gaps(_score_field(manifest), responses or (), couples or ())),
        longer_won=win_rate_interval(wins) if wins else None,
        unequal_pairs=len(wins),
        seconds=five_numbers(times),
        timed_answers=len(times),
        judge=manifest.summary.get("judge"),
        people=manifest.summary.get("people"),
    )


def _longer_wins(rows: Sequence[OutcomeRow], lengths: dict[str, int]) -> list[float]:
    """1 or 0 for each pair of which one response was chosen and one is longer: whether these are the same."""
    wins = []
    for row in rows:
        a, b = lengths.get(row.response_a_id), lengths.get(row.response_b_id)
        if row.preferred_id is not None and a is not None and b is not None and a != b:
            wins.append(float((row.preferred_id == row.response_a_id) == (a > b)))
    return wins


def _score_field(manifest: Manifest) -> str | None:
    """The score that the oracle read; other oracles than `recorded` read none, whatever the setting says."""
    is_recorded = manifest.settings.get("label.oracle") == RECORDED
    return manifest.settings.get("label.score_field") if is_recorded else None


def _pool_gaps(field: str | None, responses: Sequence[Response], couples: Sequence[Couple]) -> list[float]:
    if field is None:
        return []
    scores = {row.response_id: row.scores[field] for row in responses if field in (row.scores or {})}  # type: ignore[index]
    return [abs(scores[a] - scores[b]) for a, b in couples if a in scores and b in scores]


def read_agreement(run: Run, labels: Sequence[Labels]) -> Agreement | None:
    """How far people agree, be it beside a judge; None where no finished stage asked any, or nobody answered by a name."""
    if not any(row.oracle == HUMAN or row.people for row in labels):
        return None
    found = agreement(run)
    return found if found.people else None


def label_section(runs: Sequence[RunData]) -> Section | None:
    """Diagnostics of the labels; None where none were given."""
    if not any(run.labels for run in runs):
        return None
    plots = [_gap_plot(runs), _length_plot(runs), _time_plot(runs)]
    has_gaps = any(row.gaps for run in runs for row in run.labels)
    return Section(
        anchor="labels",
        title="Labels",
        sentences=[] if has_gaps else ["The oracle gave no scores, so there are no score gaps."],
        run_sentences=_run_sentences(runs),
        plots=[plot for plot in plots if plot.panels],
        tables=[_table(runs), *_agreement_tables(runs)],
    )


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
        for row in run.labels:
            of_judge = described({"judge": row.judge, "people": row.people})
            if of_judge:
                sentences.append(f"{run.name}, iteration {row.iteration}. {of_judge}")
    return sentences


def _gap_plot(runs: Sequence[RunData]) -> Plot:
    panels = [
        boxes_by_iteration(
            run.name,
            "|score a − score b|",
            {
                "labelled pairs": [(row.iteration, row.gaps, _source(run, row)) for row in run.labels if row.gaps],
                CANDIDATES: [(row.iteration, row.pool_gaps, _source(run, row)) for row in run.labels if row.pool_gaps],
            },
            y_from_zero=True,
        )
        for run in runs
    ]
    return Plot(
        name="score-gap",
        message=gap_message(runs),
        title="How clear the answers were",
        caption="Difference of the oracle's scores of a labelled pair's two responses, in the oracle's own unit. Small gaps "
        "are hard or pointless questions, large ones easy. Candidates stand beside them where their scores came with the "
        "responses. Boxes hold the middle half, bars are medians, whiskers go from 5 % to 95 %.",
        alternative="Boxes of score gaps by iteration.",
        has_one_scale=len({row.oracle for run in runs for row in run.labels}) == 1,
        panels=[panel for panel in panels if panel.series],
    )


def _source(run: RunData, row: Labels) -> str:
    return f"{run.name}/{row.source}"


def _length_plot(runs: Sequence[RunData]) -> Plot:
    series = []
    looks = run_looks(runs)
    for run, look in zip(runs, looks, strict=True):
        rows = [(row, row.longer_won) for row in run.labels if row.longer_won]
        if rows:
            series.append(
                interval_series(
                    run.name,
                    [float(row.iteration) for row, _ in rows],
                    [won for _, won in rows],
                    [_source(run, row) for row, _ in rows],
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
        message=longer_won_message(runs),
        title="Do the labels prefer length?",
        caption="Share of labels whose chosen response has more tokens than the rejected one; pairs of equal length are "
        "left out. At the dotted line length says nothing. The band is Wilson's 95 % interval over labels."
        + look_note(looks),
        alternative="Share of labels won by the longer response, by iteration.",
        panels=[panel] if series else [],
    )


def _time_plot(runs: Sequence[RunData]) -> Plot:
    panels = [
        boxes_by_iteration(
            run.name,
            "seconds per label",
            {"seconds": [(row.iteration, row.seconds, _source(run, row)) for row in run.labels if row.seconds]},
            y_from_zero=True,
        )
        for run in runs
    ]
    return Plot(
        name="label-seconds",
        message=seconds_message(runs),
        title="Seconds per label",
        caption="Time that people took for an answer, where it was recorded. Boxes hold the middle half, bars are medians, "
        "whiskers go from 5 % to 95 %.",
        alternative="Boxes of seconds per label by iteration.",
        panels=[panel for panel in panels if panel.series],
    )


def _table(runs: Sequence[RunData]) -> Table:
    columns = ["run", "iteration", "spent", "chosen", "tie", "both bad", "skipped", "unanswered", "score gap"]
    columns += ["score gap of candidates", "longer won", "seconds per label"]
    return table(
        "Every iteration's labels; medians with the middle half in brackets",
        columns,
        [[run.name, *_cells(row)] for run in runs for row in run.labels],
    )


def _agreement_tables(runs: Sequence[RunData]) -> list[Table]:
    """How far two people agree, pairs at random first, and each person by themselves; nothing where no people answered."""
    found = [(run.name, run.agreement) for run in runs if run.agreement]
    between = [[name, *row] for name, agreed in found for row in rows_between(agreed)]
    people = [[name, *row] for name, agreed in found for row in rows_of_people(agreed)]
    tables = []
    if between:
        title = f"How far two people agree, with 95 % intervals. {WHY_SELECTED_DIFFER}"
        tables.append(table(title, ["run", *BETWEEN], between))
    if people:
        tables.append(table("Each person who answered", ["run", *PEOPLE], people))
    return tables


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
