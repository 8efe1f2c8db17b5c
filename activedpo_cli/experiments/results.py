"""The result rows of an experiment: one for each arm, seed and iteration, read from the runs' manifests."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from activedpo_cli.base.records import EvaluatedResponse, OutcomeRow
from activedpo_cli.experiments.folder import ExperimentFolder, Job
from activedpo_cli.reports.sources import counts_last_attempt_only
from activedpo_cli.store import files
from activedpo_cli.store.jsonl import encode_json
from activedpo_cli.store.run import STAGES, Run

MEASURES = (
    "labels_spent",
    "reward_mean",
    "second_reward_mean",
    "win_rate",
    "second_win_rate",
    "kl_to_reference",
    "response_tokens_mean",
    "length_controlled_reward",
    "preference_accuracy",
)


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One evaluation of one run; iteration 0 is the initial model, which costs nothing and has no pairs.

    Attributes:
        measures: Numbers of `metrics.json`, None where one was not measured.
        seconds: Time of each stage, in seconds, over all its attempts.
        score_gap: Mean |difference of the oracle's scores| within the pairs bought in this iteration.
        bytes_of_features: Size of the columns that featurize wrote.
        digest: What identifies the evaluation, as `sha256:…`.
        last_attempt_only: Resumed stages whose records, older ones, have the seconds of the last attempt alone.

    """

    arm: str
    seed: int
    iteration: int
    measures: dict[str, float | None]
    seconds: dict[str, float]
    score_gap: float | None
    bytes_of_features: int | None
    digest: str
    last_attempt_only: list[str] = dataclasses.field(default_factory=list)


_FIELDS = {field.name for field in dataclasses.fields(ResultRow)}


def read_results(folder: ExperimentFolder, jobs: Sequence[Job]) -> list[ResultRow]:
    """The rows of all finished runs, in the order of the jobs."""
    return [row for job in jobs if folder.is_done(job) for row in rows_of(folder, job)]


def rows_of(folder: ExperimentFolder, job: Job) -> list[ResultRow]:
    """The rows of a finished run, kept from when it was finished: what features cost is not known once they are deleted."""
    run, path = job.run, folder.rows_path(job)
    assert run is not None
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    kept = [row_of(line) for line in lines]
    if all(map(_is_current, lines)) and [row.digest for row in kept] == _digests(run, folder.spec.iterations):
        return kept
    costs = {(row.iteration, row.digest): row for row in kept}
    found = [_with_costs(row, costs.get((row.iteration, row.digest))) for row in _of_job(folder, job)]
    if found != kept or not path.is_file():
        files.write_bytes(path, b"".join(encode_json(dataclasses.asdict(row)) + b"\n" for row in found))
    return found


def _is_current(line: dict[str, Any]) -> bool:
    """Whether a kept row has all that this version reads; another one is read anew, but for what only it still knows."""
    return line.keys() == _FIELDS and line["measures"].keys() == set(MEASURES)


def _with_costs(row: ResultRow, kept: ResultRow | None) -> ResultRow:
    """A row with the costs that were kept, where some of its stages have been deleted since."""
    if kept is None or row.seconds.keys() >= kept.seconds.keys():
        return row
    last_only = list(dict.fromkeys([*kept.last_attempt_only, *row.last_attempt_only]))
    return dataclasses.replace(
        row, seconds=kept.seconds, bytes_of_features=kept.bytes_of_features, last_attempt_only=last_only
    )


def _digests(run: Run, iterations: int) -> list[str]:
    evaluations = [run.initial_evaluation, *(run.stage("evaluate", t) for t in range(1, iterations + 1))]
    return [manifest.digest for folder in evaluations if (manifest := folder.manifest) is not None]


def row_of(values: dict[str, Any]) -> ResultRow:
    """A row as it stands in `results.jsonl`."""
    return ResultRow(**{key: value for key, value in values.items() if key in _FIELDS})


def as_json(row: ResultRow) -> dict[str, Any]:
    """What stands of a row in `results.jsonl`; `last_attempt_only` where there is any."""
    values = dataclasses.asdict(row)
    return values if row.last_attempt_only else {key: values[key] for key in values if key != "last_attempt_only"}


def _of_job(folder: ExperimentFolder, job: Job) -> list[ResultRow]:
    run = job.run
    assert run is not None
    initial = run.initial_evaluation
    assert initial.manifest is not None
    first = ResultRow(
        arm=job.arm,
        seed=job.seed,
        iteration=0,
        measures=_initial_measures(run),
        seconds={},
        score_gap=None,
        bytes_of_features=None,
        digest=initial.manifest.digest,
    )
    return [first] + [_of_iteration(job, run, iteration) for iteration in range(1, folder.spec.iterations + 1)]


def _of_iteration(job: Job, run: Run, iteration: int) -> ResultRow:
    manifests = {name: run.stage(name, iteration).manifest for name in STAGES}
    evaluation = manifests["evaluate"]
    assert evaluation is not None
    featurized = manifests["featurize"]
    return ResultRow(
        arm=job.arm,
        seed=job.seed,
        iteration=iteration,
        measures=_measures(run, iteration),
        seconds={name: row.execution["seconds"] for name, row in manifests.items() if row is not None},
        score_gap=_score_gap(run, iteration),
        bytes_of_features=None
        if featurized is None
        else sum(file.bytes for name, file in featurized.outputs.items() if name.endswith(".safetensors")),
        digest=evaluation.digest,
        last_attempt_only=[
            name for name, row in manifests.items() if row is not None and counts_last_attempt_only(row.execution)
        ],
    )


def _initial_measures(run: Run) -> dict[str, float | None]:
    """What the first iteration says of the initial model, by the scorers that this run's evaluations use."""
    metrics = run.stage("evaluate", 1).read_json("metrics.json")
    return dict.fromkeys(MEASURES) | {
        "labels_spent": 0,
        "reward_mean": metrics["reward_mean_initial"],
        "second_reward_mean": metrics.get("second_reward_mean_initial"),
        "win_rate": 0.5,
        "second_win_rate": 0.5 if metrics.get("second_win_rate") is not None else None,
        "kl_to_reference": 0.0,
        "response_tokens_mean": metrics["response_tokens_mean_initial"],
    }


def _measures(run: Run, iteration: int) -> dict[str, float | None]:
    folder = run.stage("evaluate", iteration)
    metrics = folder.read_json("metrics.json")
    rows: list[EvaluatedResponse] = folder.read_rows("samples.jsonl", EvaluatedResponse)
    found = {name: metrics.get(name) for name in MEASURES}
    return found | {"length_controlled_reward": _at_initial_length(metrics, rows)}


def _at_initial_length(metrics: dict[str, Any], rows: Sequence[EvaluatedResponse]) -> float | None:
    """The mean reward less what goes with length: its slope on tokens among responses to one prompt, times the change."""
    if metrics["reward_mean"] is None:
        return None
    groups: dict[str, list[EvaluatedResponse]] = {}
    for row in rows:
        groups.setdefault(row.prompt_id, []).append(row)
    products, squares = 0.0, 0.0
    for group in groups.values():
        middle = fmean(row.num_tokens for row in group)
        products += sum((row.num_tokens - middle) * (row.reward or 0.0) for row in group)
        squares += sum((row.num_tokens - middle) ** 2 for row in group)
    change = metrics["response_tokens_mean"] - metrics["response_tokens_mean_initial"]
    if not squares:  # of one response a prompt, or equally long ones, no slope can be told
        return float(metrics["reward_mean"]) if change == 0 else None
    return float(metrics["reward_mean"] - products / squares * change)


def _score_gap(run: Run, iteration: int) -> float | None:
    rows: list[OutcomeRow] = run.stage("label", iteration).read_rows("outcomes.jsonl", OutcomeRow)
    gaps = [abs(row.score_a - row.score_b) for row in rows if row.score_a is not None and row.score_b is not None]
    return fmean(gaps) if gaps else None
