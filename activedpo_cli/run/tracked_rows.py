"""What a tracker is told of a finished stage: its numbers, in rows."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.store.manifest import Manifest
from activedpo_cli.store.run import SFT, STAGES, Run
from activedpo_cli.store.stage_folder import StageFolder

METRICS = "metrics.jsonl"
TRAINING = ("train", SFT)
"""The stages with a row for each update; of the others the summary is told."""
Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class FinishedStage:
    """A finished stage, with what was spent and trained when it was.

    Attributes:
        name: As records call it: `iter-002/train`.
        folder: Where it is.
        record: Its manifest.
        labels_spent: So far, its own included.
        updates: Before it, those of *sft* included.

    """

    name: str
    folder: StageFolder
    record: Manifest
    labels_spent: int
    updates: int

    def rows(self) -> list[Row]:
        """What is told of it: a row for each update of one that trains, else one row.

        Beside the stage's numbers, called `train/loss` and so on, each has `iteration`, and `labels_spent` and `updates` so
        far. Raises InvalidDataError where the stage's log of updates can't be read.
        """
        beside = {"iteration": self.record.iteration, "labels_spent": self.labels_spent}
        trains = self.record.stage in TRAINING
        rows = [row for row in _values(self.record, self.folder) if row]
        return [row | beside | {"updates": self.updates + number * trains} for number, row in enumerate(rows, start=1)]


def finished(run: Run) -> Iterator[FinishedStage]:
    """The finished stages of a run in their order; what is damaged is passed over."""
    places = [(SFT, 0), *((stage, number) for number in run.iterations() for stage in STAGES)]
    labels, updates = 0, 0
    for stage, number in places:
        folder = run.stage(stage, number)
        record = None
        with suppress(InvalidDataError):
            record = folder.manifest
        if record is None:
            continue
        if stage == "label":
            labels += int(_number(record.summary.get("labels_spent")) or 0)
        name = SFT if stage == SFT else f"iter-{number:03d}/{stage}"
        yield FinishedStage(name=name, folder=folder, record=record, labels_spent=labels, updates=updates)
        if stage in TRAINING:
            updates += int(_number(record.summary.get("steps")) or 0)


def _values(record: Manifest, folder: StageFolder) -> Iterator[Row]:
    if record.stage not in TRAINING:
        yield dict(_numbers(record.summary, record.stage))
        return
    for row in folder.read_rows(METRICS, dict):
        yield dict(_numbers({key: row[key] for key in row if key != "step"}, record.stage))


def _numbers(values: Mapping[str, Any], name: str) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        number = _number(value)
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{name}/{key}")
        elif number is not None:
            yield f"{name}/{key}", number


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None
