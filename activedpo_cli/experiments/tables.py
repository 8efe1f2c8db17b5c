"""Tables of an experiment beside its curves: other measures, what choosing pairs costs; and Markdown."""

from collections.abc import Sequence
from statistics import fmean

from activedpo_cli.experiments.results import ResultRow
from activedpo_cli.reports.page import Table, table
from activedpo_cli.reports.wording import number, share, share_with_interval, with_interval
from activedpo_cli.statistics.summaries import mean_interval

LAST_ONLY = "resumed stages of which only the last attempt is counted"


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
        if not done:  # the features were deleted before anybody noted what they cost
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
                _last_only(done),
            ]
        )
    return table(
        "Cost of an iteration, means over seeds and iterations",
        ["arm", "featurize, s", "select, s", "both, of the iteration", "iteration, s", "features, MB", LAST_ONLY],
        cells,
    )


def _last_only(rows: Sequence[ResultRow]) -> str:
    """`3 (train, label)`: how many stages, and of which kinds."""
    names = [name for row in rows for name in row.last_attempt_only]
    return f"{len(names)} ({', '.join(dict.fromkeys(names))})" if names else ""


def markdown(tables: Sequence[Table]) -> str:
    """The tables as Markdown, each under its title."""
    return "\n\n".join(f"**{entry.title}**\n\n{_markdown_rows(entry)}" for entry in tables) + "\n"


def _markdown_rows(entry: Table) -> str:
    lines = [entry.columns, ["---"] * len(entry.columns), *entry.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


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
