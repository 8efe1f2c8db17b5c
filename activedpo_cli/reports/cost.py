"""The seconds that each stage took."""

from collections.abc import Sequence

from activedpo_cli.reports.messages import cost_message
from activedpo_cli.reports.page import Section, Table, table
from activedpo_cli.reports.plot import Panel, Plot, Series
from activedpo_cli.reports.run_data import RunData
from activedpo_cli.reports.wording import number, share
from activedpo_cli.store.run import STAGES

SELECTING = ("featurize", "select")


def cost_section(runs: Sequence[RunData]) -> Section | None:
    """Seconds by stage and iteration; None where no stage recorded any."""
    panels = [panel for run in runs if (panel := _panel(run)).series]
    if not panels:
        return None
    plot = Plot(
        name="cost",
        message=cost_message(runs),
        title="Seconds by stage",
        caption="Time of each stage as its manifest records it, on the machine it ran on. People's time for labels is not "
        "in it. A stage that was resumed counts all its attempts, or its last one where the record is older than "
        "that count. The initial model is evaluated within the first evaluate.",
        alternative="Stacked bars of seconds by stage, one for each iteration.",
        has_one_scale=True,
        panels=panels,
    )
    return Section(anchor="cost", title="Cost", run_sentences=_run_sentences(runs), plots=[plot], tables=[_table(runs)])


def _run_sentences(runs: Sequence[RunData]) -> list[str]:
    sentences = []
    for run in runs:
        timed = [(fact.stage, fact.seconds) for fact in run.stages if fact.stage in STAGES and fact.seconds is not None]
        total = sum(seconds for _, seconds in timed)
        if total:
            part = sum(seconds for stage, seconds in timed if stage in SELECTING) / total
            sentences.append(f"{run.name}: {number(total, 1)} s in all, {share(part)} of them in featurize and select.")
        last_only = [fact.name for fact in run.stages if fact.was_resumed and fact.attempts is None]
        if last_only:
            sentences.append(
                f"{run.name}: only the last attempt is counted of {', '.join(last_only)}, whose records are older than the "
                "count of all attempts."
            )
        together = [f"{fact.name} ({fact.attempts} attempts)" for fact in run.stages if (fact.attempts or 1) > 1]
        if together:
            sentences.append(f"{run.name}: all attempts are counted of {', '.join(together)}.")
    return sentences


def _panel(run: RunData) -> Panel:
    series = []
    for place, stage in enumerate(STAGES):
        facts = [fact for fact in run.stages if fact.stage == stage and fact.seconds is not None]
        if facts:
            series.append(
                Series(
                    label=stage,
                    x=[float(fact.iteration) for fact in facts],
                    y=[fact.seconds for fact in facts],
                    sources=[f"{run.name}/{fact.name}" for fact in facts],
                    colour=place,
                )
            )
    return Panel(title=run.name, x_label="iteration", y_label="seconds", kind="bars", series=series)


def _table(runs: Sequence[RunData]) -> Table:
    rows = []
    for run in runs:
        for iteration in sorted({fact.iteration for fact in run.stages if fact.iteration}):
            by_stage = {fact.stage: fact.seconds for fact in run.stages if fact.iteration == iteration}
            total = sum(value for stage in STAGES if (value := by_stage.get(stage)) is not None)
            cells = [number(by_stage.get(stage), 2) for stage in STAGES]
            rows.append([run.name, str(iteration), *cells, number(total, 2)])
    return table("Seconds by stage and iteration", ["run", "iteration", *STAGES, "in all"], rows, is_folded=True)
