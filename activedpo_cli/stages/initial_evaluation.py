"""Iteration 0: π_SFT's responses to the held-out prompts, made by the first evaluation and compared with by all."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from activedpo_cli.artifacts.lock import exclusive
from activedpo_cli.artifacts.manifest import Started
from activedpo_cli.artifacts.run import Run
from activedpo_cli.artifacts.stage_folder import set_aside
from activedpo_cli.errors import RefusedError
from activedpo_cli.records import EvaluatedResponse
from activedpo_cli.stages.base import Context, environment
from activedpo_cli.stages.measures import reward_measures, text_measures
from activedpo_cli.stages.policy import reference_digest

INITIAL_VERSION = 1


def check_same_settings(run: Run, settings: Mapping[str, Any]) -> None:
    """Raise RefusedError when the initial evaluation was made with other settings: iterations would not compare."""
    record = run.initial_evaluation.manifest
    if record is None:
        return
    differences = [
        f"{key}  {record.settings.get(key)} → {value}"
        for key, value in settings.items()
        if record.settings.get(key) != value
    ]
    if differences:
        raise RefusedError(
            "the initial evaluation of this run was made with other settings, and iterations compare only under the "
            "same ones",
            details=differences,
            hint="keep those of the initial evaluation (a length left null follows --max-new-tokens of generate), or "
            f"delete `{run.initial_evaluation.path}` and the evaluate folders to evaluate all iterations anew",
        )


def ensure_initial_evaluation(
    context: Context, settings: Mapping[str, Any], sample: Callable[[Context], list[EvaluatedResponse]]
) -> list[EvaluatedResponse]:
    """The scored responses of π_SFT, sampled by `sample` unless they are there."""
    run, folder = context.run, context.run.initial_evaluation
    with exclusive(run.lock_path("initial-evaluation"), str(folder.path)):
        if not folder.manifest:
            started = Started(
                stage="initial-evaluation",
                stage_version=INITIAL_VERSION,
                iteration=0,
                settings=dict(settings),
                inputs={"prompts": run.facts["prompts_digest"], "reference": reference_digest(run)},
            )
            if folder.started != started:  # begun with other settings, by an evaluation that failed
                set_aside(folder, run.stale)
            folder.begin(started)
            rows = sample(replace(context, folder=folder))
            folder.write_rows("samples.jsonl", rows)
            metrics = {**reward_measures(rows, rows), **text_measures(rows, rows, pure_sampling=False)}
            folder.write_json("metrics.json", metrics | {"iteration": 0, "labels_spent": 0})
            folder.finish(started, logs=(), summary=metrics, execution={}, environment=environment())
    return folder.read_rows("samples.jsonl", EvaluatedResponse)
