"""How an iteration was trained, update by update."""

from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, kw_only=True)
class Training:
    """The updates of one iteration; each column has a value for each update, None where it was not logged."""

    iteration: int
    source: str
    updates: int
    preferences: int | None
    columns: dict[str, list[float | None]]


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
        columns={column: [row.get(column) for row in rows] for column in COLUMNS},
    )
