"""How each iteration was trained, update by update, and the curves of all iterations one after the other."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from activedpo_cli.reports.messages import training_message
from activedpo_cli.reports.page import Section
from activedpo_cli.reports.plot import Panel, Plot, Series
from activedpo_cli.reports.run_data import RunData, Training
from activedpo_cli.reports.seeds import RunLook, look_note, run_looks
from activedpo_cli.statistics.wrong_answers import in_words
from activedpo_cli.store.manifest import Manifest
from activedpo_cli.store.run import Run

COLUMNS = {
    "loss": "DPO loss (nats)",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy on the batch",
    "logps/chosen": "log π of chosen (nats)",
    "logps/rejected": "log π of rejected (nats)",
    "grad_norm": "gradient norm before clipping",
}
"""Columns of `train/metrics.jsonl` that are shown, with their labels."""
LEVELS = {"rewards/margins": 0.0, "rewards/accuracies": 0.5}


def read_training(run: Run, iteration: int, manifests: dict[str, Manifest]) -> Training | None:
    """The updates of an iteration, None where *train* is not finished."""
    name = f"iter-{iteration:03d}/train"
    manifest = manifests.get(name)
    if manifest is None:
        return None
    rows: list[dict[str, Any]] = run.stage("train", iteration).read_rows("metrics.jsonl", dict)
    return Training(
        iteration=iteration,
        source=name,
        updates=len(rows),
        preferences=manifest.summary.get("preferences"),
        wrong_answers=manifest.summary.get("wrong_answers"),
        columns={column: [row.get(column) for row in rows] for column in COLUMNS},
    )


def training_section(runs: Sequence[RunData]) -> Section | None:
    """Loss, margin, accuracy, log-probabilities and gradient norm, update by update; None where nothing was trained."""
    panels = [panel for column in COLUMNS if (panel := _panel(runs, column)).series]
    if not panels:
        return None
    plot = Plot(
        name="training",
        message=training_message(runs, next(iter(COLUMNS))),
        title="Training, update by update",
        caption="TRL's metrics of each batch before its update, iterations one after the other; a marker stands at the "
        "first update of each iteration. The margin is β times the difference of the log-ratios to the initial model "
        "between chosen and rejected. A log π of chosen that falls together with that of rejected is common in DPO; "
        "one that falls without end is not. The policy is trained on these batches: they say nothing about new prompts."
        + look_note(run_looks(runs)),
        alternative="Training curves by update.",
        panels=panels,
    )
    return Section(
        anchor="training", title="Training", run_sentences=_run_sentences(runs), plots=[plot], is_folded=True
    )


def _run_sentences(runs: Sequence[RunData]) -> list[str]:
    sentences = []
    for run in (run for run in runs if run.trainings):
        beta, labels, start = (
            run.settings.get(f"train.{name}", ["unknown"])[-1] for name in ("beta", "labels", "start")
        )
        updates = sum(row.updates for row in run.trainings)
        sentences.append(
            f"{run.name}: {updates} updates in {len(run.trainings)} iterations, β {beta}, labels {labels}, start {start}."
        )
        sentences += [
            f"{run.name}, iteration {row.iteration}: {in_words(row.wrong_answers)}."
            for row in run.trainings
            if row.wrong_answers
        ]
    return sentences


def _panel(runs: Sequence[RunData], column: str) -> Panel:
    series = [
        line
        for run, look in zip(runs, run_looks(runs), strict=True)
        if (line := _series(run, look, column)) and any(v is not None for v in line.y)
    ]
    return Panel(
        title=COLUMNS[column],
        x_label="update",
        y_label="",
        series=series,
        level=LEVELS.get(column),
        is_share=column == "rewards/accuracies",
    )


def _series(run: RunData, look: RunLook, column: str) -> Series | None:
    if not run.trainings:
        return None
    starts = list(accumulate((row.updates for row in run.trainings), initial=0))
    values = [value for row in run.trainings for value in row.columns[column]]
    return Series(
        label=run.name,
        x=[float(update) for update in range(1, len(values) + 1)],
        y=values,
        sources=[f"{run.name}/{row.source}" for row in run.trainings for _ in range(row.updates)],
        colour=look.colour,
        group=look.group,
        marked=starts[:-1],
    )
