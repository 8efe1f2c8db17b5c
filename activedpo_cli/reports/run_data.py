"""All that a report shows of one run, read from its finished stages."""

from dataclasses import dataclass, field
from typing import Any

from activedpo_cli.base.records import Response
from activedpo_cli.reports.evaluation_data import Evaluation, read_evaluations
from activedpo_cli.reports.label_data import Labels, read_labels
from activedpo_cli.reports.sample_data import Answered, read_samples
from activedpo_cli.reports.selection_data import Batch, candidate_couples, read_batch
from activedpo_cli.reports.sources import StageFact, finished_stages, is_outdated, stage_facts, unfinished_stages
from activedpo_cli.reports.training_data import Training, read_training
from activedpo_cli.store.manifest import Manifest
from activedpo_cli.store.run import Run


@dataclass(frozen=True, kw_only=True)
class RunData:
    """One run.

    Attributes:
        name: What it is called in the report.
        model: Its initial model as named by the user, with the digest of its weights.
        settings: Every setting that a finished stage was made with, and its values in the order of iterations.
        unfinished: Stages of begun iterations that are not finished, by name.

    """

    name: str
    preset: str
    made_by: str
    model: str
    model_digest: str
    prompts_digest: str
    seed: int | None
    methods: list[str]
    settings: dict[str, list[Any]]
    stages: list[StageFact]
    unfinished: list[str]
    evaluations: list[Evaluation] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)
    trainings: list[Training] = field(default_factory=list)
    samples: list[Answered] = field(default_factory=list)


def read_run(run: Run, name: str) -> RunData:
    """Read a run; raises InvalidDataError naming the file where one is damaged."""
    manifests = finished_stages(run)
    facts, base = run.facts, run.base
    batches, labels = _batches_and_labels(run, manifests)
    trainings = [read_training(run, iteration, manifests) for iteration in run.iterations()]
    return RunData(
        name=name,
        preset=str(facts["preset"]),
        made_by=str(facts.get("activedpo_cli", "")),
        model=base["name"],
        model_digest=base["digest"],
        prompts_digest=facts["prompts_digest"],
        seed=facts.get("fixed", {}).get("seed"),
        methods=list(dict.fromkeys(batch.method for batch in batches)),
        settings=_settings(facts.get("fixed", {}), manifests),
        stages=stage_facts(run, manifests),
        unfinished=unfinished_stages(run),
        evaluations=read_evaluations(run, manifests),
        batches=batches,
        labels=labels,
        trainings=[row for row in trainings if row],
        samples=read_samples(run, manifests),
    )


def _batches_and_labels(run: Run, manifests: dict[str, Manifest]) -> tuple[list[Batch], list[Labels]]:
    batches: list[Batch] = []
    labels: list[Labels] = []
    for iteration in run.iterations():
        responses = _responses(run, iteration, manifests)
        couples = candidate_couples(run, iteration, manifests)
        if batch := read_batch(run, iteration, manifests, responses):
            batches.append(batch)
        if answers := read_labels(run, iteration, manifests, responses, couples):
            labels.append(answers)
    return batches, labels


def _responses(run: Run, iteration: int, manifests: dict[str, Manifest]) -> list[Response] | None:
    """The responses that an iteration's pairs were picked from; None where they are gone or others took their place."""
    name = f"iter-{iteration:03d}/generate"
    select = manifests.get(f"iter-{iteration:03d}/select")
    if select is None or name not in manifests or is_outdated(select, name, manifests):
        return None
    if run.drawn_prompts(iteration)["source"] == "pool" and "pool" not in manifests:
        return None
    return run.responses(iteration)


def _settings(fixed: dict[str, Any], manifests: dict[str, Manifest]) -> dict[str, list[Any]]:
    """A setting that several stages record is taken from the stage that it belongs to, where that is finished."""
    by_iteration: dict[int, dict[str, Any]] = {}
    for own in (False, True):
        for manifest in manifests.values():
            found = by_iteration.setdefault(manifest.iteration, {})
            found.update({k: v for k, v in manifest.settings.items() if not own or k.startswith(f"{manifest.stage}.")})
    values: dict[str, list[Any]] = {key: [value] for key, value in fixed.items()}
    for iteration in sorted(by_iteration):
        for key, value in by_iteration[iteration].items():
            row = values.setdefault(key, [])
            if value not in row[-1:]:
                row.append(value)
    return dict(sorted(values.items()))
