"""Verifies the rewards of the initial model's responses, which no manifest lists, by what was computed from them."""

import shlex
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.records import EvaluatedResponse, Response, ResponseReward
from activedpo_cli.evaluate.initial_evaluation import METRICS_NAME, initial_metrics, rewards_name
from activedpo_cli.evaluate.measures import REWARD_NAMES, ROLES, Role, reward_measures
from activedpo_cli.health.findings import Findings
from activedpo_cli.label.scoring import evaluated_rows
from activedpo_cli.store.audit import record_fault
from activedpo_cli.store.jsonl import encode_rows
from activedpo_cli.store.manifest import Manifest
from activedpo_cli.store.run import Run

Rewards = list[ResponseReward]


def verify_rewards(run: Run, record: Manifest, findings: Findings) -> None:
    """Look whether each file of rewards has one for every response, and whether what was computed of it is still that.

    The record of an evaluation names the file that it was compared with; the metrics of the initial model are those of
    some file by each of their scorers.
    """
    folder = run.initial_evaluation
    try:
        responses = [row for name in record.outputs for row in folder.read_rows(name, Response)]
    except (InvalidDataError, OSError):
        return  # reported where that file itself is verified
    before = len(findings.problems)
    names = folder.names("rewards-*.jsonl")
    known = {name: rows for name in names if (rows := _read_rewards(run, name, responses, findings))}
    if len(findings.problems) > before:
        return
    metrics = _read_metrics(run, findings) if folder.has(METRICS_NAME) else None
    summed_up = _summed_up(metrics, responses, known) if metrics else None
    at_fault = [
        name
        for name, rewards in known.items()
        if _is_at_fault(run, name, _rated(responses, rewards, rewards), summed_up or (), findings)
    ]
    if summed_up == () and not at_fault:
        findings.add(
            folder.path / METRICS_NAME, "changed", "its numbers are not those of the rewards beside it", _again(run)
        )


def _read_rewards(run: Run, name: str, responses: Sequence[Response], findings: Findings) -> Rewards:
    """The rewards of a file, none where something is wrong with it."""
    path = run.initial_evaluation.path / name
    kind, reason = "damaged", "it does not have one reward for each response"
    try:
        found: Rewards = run.initial_evaluation.read_rows(name, ResponseReward)
        if [row.response_id for row in found] == [row.response_id for row in responses]:
            if encode_rows(found) == path.read_bytes():
                return found
            kind, reason = "changed", "it is not in the form in which it was written"
    except InvalidDataError as error:
        reason = error.in_one_line
    findings.add(path, kind, reason, f"rm {shlex.quote(str(path))}")
    return []


def _again(run: Run) -> str:
    return f"{run.next_command('evaluate', (run.iterations() or [1])[-1])} --force"


def _read_metrics(run: Run, findings: Findings) -> dict[str, Any] | None:
    """The metrics of the initial model, None where something is wrong with their file."""
    folder = run.initial_evaluation
    try:
        metrics: dict[str, Any] = folder.read_json(METRICS_NAME)
        if (fault := record_fault(folder.path, METRICS_NAME)) is None:
            return metrics | {role: metrics[role] for role in ("scorer", "second_scorer")}
        findings.add_fault(folder.path, fault, _again(run))
    except (InvalidDataError, LookupError, TypeError) as error:
        findings.add(folder.path / METRICS_NAME, "damaged", f"it can't be read: {error}", _again(run))
    return None


def _summed_up(
    metrics: dict[str, Any], responses: Sequence[Response], known: Mapping[str, Rewards]
) -> tuple[str | None, ...] | None:
    """The files by both scorers that the metrics come out of; empty where none do, None where a scorer's were deleted."""
    scorers = (metrics["scorer"], metrics["second_scorer"])
    choices: list[list[str | None]] = [
        [None] if spec is None else [name for name, rows in known.items() if rows[0].scorer == spec] for spec in scorers
    ]
    if not all(choices):
        return None
    for names in product(*choices):
        first, second = (None if name is None else known[name] for name in names)
        if initial_metrics(_rated(responses, first, second), scorers) == metrics:
            return names
    return ()


def _rated(responses: Sequence[Response], first: Rewards | None, second: Rewards | None) -> list[EvaluatedResponse]:
    """The initial model's responses with rewards by both scorers."""
    columns = [None if rows is None else [row.reward for row in rows] for rows in (first, second)]
    return evaluated_rows(responses, rewards=columns[0], second_rewards=columns[1])


def _is_at_fault(
    run: Run,
    name: str,
    initial: Sequence[EvaluatedResponse],
    summed_up: Sequence[str | None],
    findings: Findings,
) -> bool:
    """Whether a file of rewards gives none of the numbers that were computed from it.

    Where it gives some, the scorer was asked again since: the others are noted, and no problem.
    """
    is_same = {
        f"iter-{iteration:03d}/evaluate": _is_compared(run, iteration, role, initial)
        for iteration in run.iterations()
        for role in ROLES
        if _rewards_of(run, iteration, role) == name
    }
    others = ", ".join(evaluation for evaluation, same in is_same.items() if same is False)
    path = run.initial_evaluation.path / name
    if others and not any(is_same.values()) and name not in summed_up:
        what = f"its rewards are not those that {others} was compared with"
        findings.add(path, "changed", what, f"rm {shlex.quote(str(path))}")
        return True
    if others:
        findings.notes.append(
            f"{others} was compared with other rewards of the initial model than `{name}` has now: the scorer was asked "
            "again since"
        )
    return False


def _rewards_of(run: Run, iteration: int, role: Role) -> str | None:
    """The file of rewards that an evaluation was compared with; None where it says none, or can't be read."""
    folder = run.stage("evaluate", iteration)
    try:
        record, scorer = folder.manifest, folder.read_json("metrics.json").get(f"{role}scorer")
    except (InvalidDataError, OSError):
        return None  # damage is reported where that file itself is verified, and what was not evaluated says nothing
    return None if record is None or scorer is None else rewards_name(scorer, record.inputs, record.settings)


def _is_compared(run: Run, iteration: int, role: Role, initial: Sequence[EvaluatedResponse]) -> bool | None:
    """Whether an evaluation's rewards, gains and win rate come out of these rewards again; None where it can't be read."""
    folder = run.stage("evaluate", iteration)
    try:
        found = reward_measures(folder.read_rows("samples.jsonl", EvaluatedResponse), initial)
    except (InvalidDataError, OSError, ValueError):
        return None
    metrics = folder.read_json("metrics.json")
    return all(found[role + name] == metrics.get(role + name) for name in REWARD_NAMES)
