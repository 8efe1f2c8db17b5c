"""What was measured of a run's policies, iteration 0 being the initial model."""

from dataclasses import dataclass
from typing import Any

from activedpo_cli.store.manifest import Manifest
from activedpo_cli.store.run import Run

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Scorer:
    """Who gave rewards: a name, and the digests of its content. Rewards compare only where both are equal."""

    name: str
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The metrics of an iteration, and who scored; no scorer where nobody did."""

    iteration: int
    source: str
    labels_spent: int
    scorer: Scorer | None
    second_scorer: Scorer | None
    metrics: Metrics


def read_evaluations(run: Run, manifests: dict[str, Manifest]) -> list[Evaluation]:
    """The evaluations there are, in order; iteration 0 by the scorers of the newest evaluation that had any."""
    finished = [
        _evaluation(name, manifest, run.stage("evaluate", manifest.iteration).read_json("metrics.json"))
        for name, manifest in manifests.items()
        if manifest.stage == "evaluate"
    ]
    if "initial-evaluation" not in manifests or not run.initial_evaluation.has("metrics.json"):
        return finished
    metrics = run.initial_evaluation.read_json("metrics.json")
    initial = Evaluation(
        iteration=0,
        source="initial-evaluation",
        labels_spent=0,
        scorer=_known(metrics.get("scorer"), [row.scorer for row in finished]),
        second_scorer=_known(metrics.get("second_scorer"), [row.second_scorer for row in finished]),
        metrics=metrics,
    )
    return [initial, *finished]


def _evaluation(name: str, manifest: Manifest, metrics: Metrics) -> Evaluation:
    return Evaluation(
        iteration=manifest.iteration,
        source=name,
        labels_spent=metrics["labels_spent"],
        scorer=_scorer(metrics.get("scorer"), manifest),
        second_scorer=_scorer(metrics.get("second_scorer"), manifest),
        metrics=metrics,
    )


def _scorer(name: str | None, manifest: Manifest) -> Scorer | None:
    if name is None:
        return None
    inputs = manifest.inputs.items()
    return Scorer(name, tuple(sorted(digest for key, digest in inputs if key.startswith(f"oracle {name} "))))


def _known(name: str | None, scorers: list[Scorer | None]) -> Scorer | None:
    """The newest scorer of that name; the initial model's own record holds no digests."""
    if name is None:
        return None
    return next((scorer for scorer in reversed(scorers) if scorer and scorer.name == name), Scorer(name))
