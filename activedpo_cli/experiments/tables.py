"""The tables of an experiment's report."""

from collections.abc import Sequence
from statistics import fmean

from activedpo_cli.experiments.analysis import ArmCurve, Difference
from activedpo_cli.experiments.results import ResultRow
from activedpo_cli.reports.page import Table, table
from activedpo_cli.reports.wording import number, share, share_with_interval, with_interval
from activedpo_cli.statistics.summaries import mean_interval


def curve_table(title: str, curves: Sequence[ArmCurve], baseline: str | None) -> Table:
    """What each arm's whole curve comes to, best first."""
    ordered = sorted(curves, key=lambda row: -row.height.mean)
    rows = [
        [
            row.arm,
            str(len(row.seeds)),
            with_interval(*row.height),
            "" if row.height_difference is None else with_interval(*row.height_difference.interval),
            p_value(row.height_difference),
            with_interval(*row.mean[-1]),
            "" if row.differences is None else with_interval(*row.differences[-1]),
            "" if baseline is None else _labels(row),
            "" if row.share is None or row.share.low is None else share_with_interval(*row.share),
        ]
        for row in ordered
    ]
    columns = [
        "arm",
        "seeds",
        "mean height of the curve",
        f"minus {baseline}",
        "p (Holm)",
        "at the end",
        f"at the end, minus {baseline}",
        f"labels to where {baseline} ends",
        "share of the way to the ceiling",
    ]
    return table(title, columns, rows)


def point_table(title: str, curves: Sequence[ArmCurve]) -> Table:
    """Every arm's mean after each iteration."""
    labels = max((row.labels for row in curves), key=len)
    rows = [[row.arm, *(with_interval(*point) for point in row.mean)] for row in curves]
    return table(title, ["arm", *(f"{number(spent, 0)} labels" for spent in labels)], rows)


def other_table(rows: Sequence[ResultRow], arms: Sequence[str]) -> Table:
    """What else changed by the last iteration: win rates, length, distance from the reference, informativeness of labels."""
    last = max(row.iteration for row in rows)
    cells = []
    for arm in arms:
        final = [row for row in rows if row.arm == arm and row.iteration == last]
        cells.append(
            [
                arm,
                _mean(final, "win_rate", is_share=True),
                _mean(final, "second_win_rate", is_share=True),
                _mean(final, "length_controlled_reward"),
                _mean(final, "response_tokens_mean", digits=1),
                _mean(final, "kl_to_reference", digits=1),
                _mean(final, "preference_accuracy", is_share=True),
                *(_gap(rows, arm, which) for which in (1, last)),
            ]
        )
    return table(
        "After the last iteration, means over seeds with 95 % intervals",
        [
            "arm",
            "win rate against the initial model",
            "win rate, second scorer",
            "reward at the initial length",
            "tokens",
            "KL, nats",
            "held-out preference accuracy",
            "score gap within bought pairs, first iteration",
            "last iteration",
        ],
        cells,
    )


def cost_table(rows: Sequence[ResultRow], arms: Sequence[str]) -> Table:
    """What choosing the pairs costs: seconds an iteration, share of the iteration, bytes."""
    cells = []
    for arm in arms:
        done = [row for row in rows if row.arm == arm and {"featurize", "select"} <= row.seconds.keys()]
        if not done:  # deleted before anybody asked
            continue
        totals = [sum(row.seconds.values()) for row in done]
        choosing = [row.seconds["featurize"] + row.seconds["select"] for row in done]
        stored = [row.bytes_of_features for row in done if row.bytes_of_features is not None]
        cells.append(
            [
                arm,
                number(fmean(row.seconds["featurize"] for row in done), 2),
                number(fmean(row.seconds["select"] for row in done), 3),
                share(sum(choosing) / sum(totals)),
                number(fmean(totals), 1),
                number(fmean(stored) / 1e6, 2) if stored else "",
            ]
        )
    return table(
        "Cost of an iteration, means over seeds and iterations",
        ["arm", "featurize, s", "select, s", "both, of the iteration", "iteration, s", "features, MB"],
        cells,
    )


def markdown(tables: Sequence[Table]) -> str:
    """The tables as Markdown, each under its title."""
    return "\n\n".join(f"**{entry.title}**\n\n{_markdown_rows(entry)}" for entry in tables) + "\n"


def p_value(difference: Difference | None) -> str:
    """`0.021 (0.062)`, the latter corrected."""
    if difference is None:
        return ""
    return f"{difference.p_value:.3f}" + ("" if difference.adjusted is None else f" ({difference.adjusted:.3f})")


def _markdown_rows(entry: Table) -> str:
    lines = [entry.columns, ["---"] * len(entry.columns), *entry.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _labels(row: ArmCurve) -> str:
    if row.labels_to_target == row.labels[0]:
        return "from the start"
    ends = row.labels_to_target_range
    return _reached(row.labels_to_target) + ("" if ends is None else f" [{_reached(ends[0])}, {_reached(ends[1])}]")


def _reached(labels: float | None) -> str:
    return "not reached" if labels is None else number(labels, 0)


def _mean(rows: Sequence[ResultRow], measure: str, *, digits: int = 3, is_share: bool = False) -> str:
    values = [value for row in rows if (value := row.measures.get(measure)) is not None]
    if not values or len(values) < len(rows):
        return ""
    mean, low, high = mean_interval(values)
    if not is_share:
        return with_interval(mean, low, high, digits=digits)
    return share_with_interval(mean, None if low is None else max(0.0, low), None if high is None else min(1.0, high))


def _gap(rows: Sequence[ResultRow], arm: str, iteration: int) -> str:
    values = [
        row.score_gap for row in rows if row.arm == arm and row.iteration == iteration and row.score_gap is not None
    ]
    return with_interval(*mean_interval(values)) if values else ""
