"""What was measured of a run's policies on held-out prompts, against the labels spent; iteration 0 is the initial model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from activedpo_cli.base.records import ResponseReward
from activedpo_cli.evaluate.initial_evaluation import rewards_name
from activedpo_cli.evaluate.measures import ROLES, Role
from activedpo_cli.reports.messages import accuracy_message, distance_message, reward_message, win_rate_message
from activedpo_cli.reports.page import Section, Table, table
from activedpo_cli.reports.plot import Panel, Plot, Series, against_labels
from activedpo_cli.reports.run_data import Evaluation, Metrics, RunData, Scorer
from activedpo_cli.reports.seeds import RunLook, look_note, run_looks
from activedpo_cli.reports.wording import listed, number, share, share_with_interval, with_interval
from activedpo_cli.statistics.summaries import mean_interval
from activedpo_cli.store.manifest import Manifest, digest_of
from activedpo_cli.store.run import Run

LONGEST_TITLE = 44
Line = Callable[[RunData, RunLook, Sequence[Evaluation], Role], Series]
COLUMNS = [
    "run",
    "iteration",
    "labels",
    "reward",
    "gain",
    "win rate",
    "KL (nats)",
    "tokens",
    "cut off",
    "preference accuracy",
]
SECOND_COLUMNS = ["run", "iteration", "labels", "second reward", "second gain", "second win rate"]


def read_evaluations(run: Run, manifests: dict[str, Manifest]) -> list[Evaluation]:
    """The evaluations there are, in order; iteration 0 by the scorers of the newest evaluation that had any."""
    records = [manifest for manifest in manifests.values() if manifest.stage == "evaluate"]
    finished = [_evaluation(run, manifest) for manifest in records]
    if "initial-evaluation" not in manifests or not run.initial_evaluation.has("metrics.json"):
        return finished
    metrics = run.initial_evaluation.read_json("metrics.json")
    initial = Evaluation(
        iteration=0,
        source="initial-evaluation",
        labels_spent=0,
        scorer=_initial_scorer(run, metrics, "", records),
        second_scorer=_initial_scorer(run, metrics, "second_", records),
        metrics=metrics,
    )
    return [initial, *finished]


def _evaluation(run: Run, manifest: Manifest) -> Evaluation:
    metrics = run.stage("evaluate", manifest.iteration).read_json("metrics.json")
    return Evaluation(
        iteration=manifest.iteration,
        source=f"iter-{manifest.iteration:03d}/evaluate",
        labels_spent=metrics["labels_spent"],
        scorer=_scorer_of(metrics.get("scorer"), manifest),
        second_scorer=_scorer_of(metrics.get("second_scorer"), manifest),
        metrics=metrics,
    )


def _scorer_of(name: str | None, manifest: Manifest) -> Scorer | None:
    if name is None:
        return None
    inputs = manifest.inputs.items()
    return Scorer(name, tuple(sorted(digest for key, digest in inputs if key.startswith(f"oracle {name} "))))


def _initial_scorer(run: Run, metrics: Metrics, role: Role, records: Sequence[Manifest]) -> Scorer | None:
    """Who gave the rewards that the metrics of the initial model sum up; None where no evaluation names them.

    The metrics hold a scorer's name and not what it was made of. The records of evaluations say that, and so which file
    has the rewards that the initial model got from it.
    """
    name = metrics.get(f"{role}scorer")
    if name is None:
        return None
    for manifest in reversed(records):
        rewards = initial_rewards(run, name, manifest)
        found = mean_interval(list(_by_prompt(rewards).values())) if rewards else None
        if found == tuple(metrics.get(f"{role}reward_{part}") for part in ("mean", "ci_low", "ci_high")):
            return _scorer_of(name, manifest)
    return None


def initial_rewards(run: Run, scorer: str, evaluation: Manifest) -> dict[str, float]:
    """The rewards of the initial model's responses that an evaluation was compared with, by response; empty if deleted."""
    folder, name = run.initial_evaluation, rewards_name(scorer, evaluation.inputs, evaluation.settings)
    rows = folder.read_rows(name, ResponseReward) if folder.has(name) else []
    return {row.response_id: row.reward for row in rows}


def _by_prompt(rewards: Mapping[str, float]) -> dict[str, float]:
    """The mean reward of each prompt's responses."""
    groups: dict[str, list[float]] = {}
    for response, reward in rewards.items():
        groups.setdefault(response.partition("/")[0], []).append(reward)
    return {prompt: fmean(values) for prompt, values in groups.items()}


def scorers(runs: Sequence[RunData], role: Role) -> list[Scorer]:
    """Everyone who scored in a role, in the order of their appearance."""
    found = [_scorer_in(row, role) for run in runs for row in run.evaluations if _was_scored(row, role)]
    return list(dict.fromkeys(scorer for scorer in found if scorer))


def scored(run: RunData, role: Role, scorer: Scorer) -> list[Evaluation]:
    """The evaluations by a scorer, with that of the initial model where it is by the same one."""
    return [row for row in run.evaluations if _scorer_in(row, role) == scorer and _was_scored(row, role)]


def titles(found: Sequence[Scorer]) -> list[tuple[Scorer, str]]:
    """A title for each scorer; scorers of one name are told apart by the first digits of their content."""
    names, rows = [scorer.name for scorer in found], []
    for scorer in found:
        short = scorer.name if len(scorer.name) <= LONGEST_TITLE else "…" + scorer.name[1 - LONGEST_TITLE :]
        digits = digest_of(scorer.digests).removeprefix("sha256:")[:8]
        rows.append((scorer, f"by {short}" + (f" ({digits})" if names.count(scorer.name) > 1 else "")))
    return rows


def _was_scored(row: Evaluation, role: Role) -> bool:
    return row.metrics.get(f"{role}reward_mean") is not None


def _scorer_in(row: Evaluation, role: Role) -> Scorer | None:
    return row.second_scorer if role else row.scorer


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


def _by_scorer(
    runs: Sequence[RunData], y_label: str, line: Line, *, level: float | None = None, is_share: bool = False
) -> list[Panel]:
    """A panel for each scorer with a line for each run that it scored."""
    return [
        against_labels(
            title,
            y_label,
            [
                line(run, look, rows, role)
                for run, look in zip(runs, run_looks(runs), strict=True)
                if (rows := scored(run, role, scorer)) and any(row.iteration for row in rows)
            ],
            level=level,
            is_share=is_share,
        )
        for role in ROLES
        for scorer, title in titles(scorers(runs, role))
    ]


def _reward_plot(runs: Sequence[RunData]) -> Plot:
    return Plot(
        name="reward",
        message=reward_message(runs),
        title="Mean reward on held-out prompts",
        caption="Mean reward over held-out prompts, in the scorer's own unit, higher is better. At 0 labels stands the "
        "initial model. The band is a 95 % interval (Student's t) over prompts, one mean for each prompt."
        + look_note(run_looks(runs)),
        alternative=f"Mean reward against labels spent for {listed([run.name for run in runs])}.",
        panels=_by_scorer(runs, "mean reward", _reward_series),
    )


def _win_rate_plot(runs: Sequence[RunData]) -> Plot:
    panels = _by_scorer(runs, "win rate", _win_rate_series, level=0.5, is_share=True)
    return Plot(
        name="win-rate",
        message=win_rate_message(runs),
        title="Win rate against the initial model",
        caption="Share of responses with a higher reward than the initial model's response to the same prompt with the "
        "same seed; equal rewards count half. Above the dotted line at 50 % the policy is the better one. The band is "
        "Wilson's 95 % interval over prompts." + look_note(run_looks(runs)),
        alternative=f"Win rate against labels spent for {listed([run.name for run in runs])}.",
        panels=[panel for panel in panels if panel.series],
    )


def _accuracy_plot(runs: Sequence[RunData]) -> Plot:
    panel = _measured(runs, "preference_accuracy", "preference_accuracy_ci", "preference accuracy", is_share=True)
    return Plot(
        name="preference-accuracy",
        message=accuracy_message(runs),
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
        message=distance_message(runs),
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
    return against_labels(label, "", series, level=0.5 if is_share else None, is_share=is_share)


def _win_rate_series(run: RunData, look: RunLook, rows: Sequence[Evaluation], role: Role) -> Series:
    return _series(run, look, [row for row in rows if row.iteration], f"{role}win_rate", f"{role}win_rate_ci")


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


def evaluation_tables(runs: Sequence[RunData]) -> list[Table]:
    """A row for each evaluation, iteration 0 being the initial model; a second table where a second scorer stood by."""
    rows = [(run, row) for run in runs for row in run.evaluations]
    first = table(
        "Every evaluation, with 95 % intervals over prompts", COLUMNS, [_cells(run, row) for run, row in rows]
    )
    scored = [(run, row) for run, row in rows if row.metrics.get("second_reward_mean") is not None]
    cells = [[*_place(run, row), *_rewards(row, "second_")] for run, row in scored]
    return [first, table("The same by the second scorer", SECOND_COLUMNS, cells)] if scored else [first]


def _cells(run: RunData, row: Evaluation) -> list[str]:
    metrics = row.metrics
    return [
        *_place(run, row),
        *_rewards(row, ""),
        with_interval(metrics.get("kl_to_reference"), metrics.get("kl_ci_low"), metrics.get("kl_ci_high"), 2),
        number(metrics.get("response_tokens_mean"), 1),
        share(metrics.get("truncated_share")),
        share_with_interval(*_with_ends(row, "preference_accuracy")),
    ]


def _place(run: RunData, row: Evaluation) -> list[str]:
    return [run.name, str(row.iteration), str(row.labels_spent)]


def _rewards(row: Evaluation, role: str) -> list[str]:
    """Reward, gain and win rate; the initial model has the latter two by definition, so they are not shown."""
    low, high = row.metrics.get(f"{role}reward_ci_low"), row.metrics.get(f"{role}reward_ci_high")
    reward = with_interval(row.metrics.get(f"{role}reward_mean"), low, high)
    if row.iteration == 0:
        return [reward, "", ""]
    gain = with_interval(*_with_ends(row, f"{role}reward_gain"))
    return [reward, gain, share_with_interval(*_with_ends(row, f"{role}win_rate"))]


def _with_ends(row: Evaluation, field: str) -> tuple[float | None, float | None, float | None]:
    metrics = row.metrics
    return metrics.get(field), metrics.get(f"{field}_ci_low"), metrics.get(f"{field}_ci_high")
