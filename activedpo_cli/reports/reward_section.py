"""Rewards, win rates, and what else was measured on held-out prompts, against the labels spent."""

from collections.abc import Sequence
from dataclasses import replace

from activedpo_cli.reports.evaluation_data import Evaluation
from activedpo_cli.reports.evaluation_table import evaluation_tables
from activedpo_cli.reports.plot import Panel, Plot, Series
from activedpo_cli.reports.run_data import RunData
from activedpo_cli.reports.run_looks import RunLook, look_note, run_looks
from activedpo_cli.reports.scorers import ROLES, Role, scored, scorers, titles
from activedpo_cli.reports.section import Section
from activedpo_cli.reports.wording import listed

LABELS = "labels spent"


def reward_section(runs: Sequence[RunData]) -> Section | None:
    """Reward and win rate by each scorer, KL, length and preference accuracy; None where nothing was evaluated."""
    if not any(run.evaluations for run in runs):
        return None
    plots = [_reward_plot(runs), _win_rate_plot(runs), _accuracy_plot(runs), _distance_plot(runs)]
    return Section(
        anchor="rewards",
        title="Reward against labels spent",
        sentences=_sentences(runs),
        plots=[plot for plot in plots if plot.panels],
        tables=evaluation_tables(runs),
    )


def _sentences(runs: Sequence[RunData]) -> list[str]:
    counts = sorted({row.metrics["n"] for run in runs for row in run.evaluations})
    seeds = sorted({run.seed for run in runs if run.seed is not None})
    sentences = [
        f"Measured on {listed([str(count) for count in counts])} held-out prompts. Intervals say how far another draw of "
        "prompts could move a number, not another seed: " + _seeds(len(seeds), len(runs))
    ]
    if len({run.prompts_digest for run in runs if run.evaluations}) > 1:
        sentences.append("The runs have different held-out prompts, so that their levels do not compare exactly.")
    if not any(scorers(runs, role) for role in ROLES):
        sentences.append("Nobody scored the responses, so there are no rewards and no win rates (evaluate --scorer).")
    names = {scorer.name for role in ROLES for scorer in scorers(runs, role)}
    if len(names) > 1 or any(len(scorers(runs, role)) > 1 for role in ROLES):
        sentences.append("Rewards by different scorers do not compare; each scorer has a panel of its own.")
    judges = {labels.oracle for run in runs for labels in run.labels} & names
    if judges:
        sentences.append(
            f"{listed(sorted(judges))} gave the labels too: a policy that learns to please a judge is measured by it here."
        )
    return sentences


def _seeds(seeds: int, runs: int) -> str:
    if seeds <= 1:
        return "all of this is one seed."
    return "every run here has its own seed." if seeds == runs else f"the runs have {seeds} seeds."


def _reward_plot(runs: Sequence[RunData]) -> Plot:
    looks = run_looks(runs)
    panels = [
        Panel(
            title=title,
            x_label=LABELS,
            x_from_zero=True,
            y_label="mean reward",
            series=[
                _reward_series(run, look, rows, role)
                for run, look in zip(runs, looks, strict=True)
                if (rows := scored(run, role, scorer))
            ],
        )
        for role in ROLES
        for scorer, title in titles(scorers(runs, role))
    ]
    return Plot(
        name="reward",
        title="Mean reward on held-out prompts",
        caption="Mean reward over held-out prompts, in the scorer's own unit, higher is better. At 0 labels stands the "
        "initial model. The band is a 95 % interval (Student's t) over prompts, one mean for each prompt."
        + look_note(looks),
        alternative=f"Mean reward against labels spent for {listed([run.name for run in runs])}.",
        panels=panels,
    )


def _win_rate_plot(runs: Sequence[RunData]) -> Plot:
    looks = run_looks(runs)
    panels = [
        Panel(
            title=title,
            x_label=LABELS,
            x_from_zero=True,
            y_label="win rate",
            level=0.5,
            is_share=True,
            series=[
                _series(run, look, rows, f"{role}win_rate", f"{role}win_rate_ci")
                for run, look in zip(runs, looks, strict=True)
                if (rows := [row for row in scored(run, role, scorer) if row.iteration])
            ],
        )
        for role in ROLES
        for scorer, title in titles(scorers(runs, role))
    ]
    return Plot(
        name="win-rate",
        title="Win rate against the initial model",
        caption="Share of responses with a higher reward than the initial model's response to the same prompt with the "
        "same seed; equal rewards count half. Above the dotted line at 50 % the policy is the better one. The band is "
        "Wilson's 95 % interval over prompts." + look_note(looks),
        alternative=f"Win rate against labels spent for {listed([run.name for run in runs])}.",
        panels=[panel for panel in panels if panel.series],
    )


def _accuracy_plot(runs: Sequence[RunData]) -> Plot:
    panel = _measured(runs, "preference_accuracy", "preference_accuracy_ci", "preference accuracy", is_share=True)
    return Plot(
        name="preference-accuracy",
        title="Held-out preferences ordered rightly",
        caption="Share of held-out preferences whose chosen response has the larger implicit reward, averaged within a "
        "prompt and then over prompts. The dotted line at 50 % is guessing. The band is Wilson's 95 % interval over "
        "prompts." + look_note(run_looks(runs)),
        alternative="Preference accuracy against labels spent.",
        panels=[panel] if panel.series else [],
    )


def _distance_plot(runs: Sequence[RunData]) -> Plot:
    panels = [
        _measured(runs, "kl_to_reference", "kl_ci", "KL to the initial model (nats per response)"),
        _measured(runs, "response_tokens_mean", None, "mean response length (tokens)"),
    ]
    return Plot(
        name="distance",
        title="Distance from the initial model, and length",
        caption="The KL says how far the policy has moved: the mean log-ratio to the initial model on the policy's own "
        "samples, with a 95 % interval over prompts. Reward that grows with length or with distance alone deserves a "
        "second look." + look_note(run_looks(runs)),
        alternative="KL to the initial model and mean response length against labels spent.",
        panels=[panel for panel in panels if panel.series],
    )


def _measured(
    runs: Sequence[RunData], field: str, interval: str | None, label: str, *, is_share: bool = False
) -> Panel:
    series = [
        _series(run, look, rows, field, interval)
        for run, look in zip(runs, run_looks(runs), strict=True)
        if (rows := [row for row in run.evaluations if row.metrics.get(field) is not None])
    ]
    return Panel(
        title=label,
        x_label=LABELS,
        x_from_zero=True,
        y_label="",
        series=series,
        is_share=is_share,
        level=0.5 if is_share else None,
    )


def _reward_series(run: RunData, look: RunLook, rows: Sequence[Evaluation], role: Role) -> Series:
    """The mean rewards; the initial model's is taken from the newest comparison with it where it has no record."""
    series = _series(run, look, rows, f"{role}reward_mean", f"{role}reward_ci")
    if rows[0].iteration == 0:
        return series
    return replace(
        series,
        x=[0, *series.x],
        y=[rows[-1].metrics[f"{role}reward_mean_initial"], *series.y],
        low=[None, *(series.low or [])],
        high=[None, *(series.high or [])],
        sources=[series.sources[-1], *series.sources],
    )


def _series(run: RunData, look: RunLook, rows: Sequence[Evaluation], field: str, interval: str | None) -> Series:
    ends = (
        None
        if interval is None
        else [[row.metrics.get(f"{interval}_{end}") for row in rows] for end in ("low", "high")]
    )
    return Series(
        label=run.name,
        x=[row.labels_spent for row in rows],
        y=[row.metrics[field] for row in rows],
        low=ends[0] if ends else None,
        high=ends[1] if ends else None,
        sources=[f"{run.name}/{row.source}" for row in rows],
        colour=look.colour,
        group=look.group,
    )
