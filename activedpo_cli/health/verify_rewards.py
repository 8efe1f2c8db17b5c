"""What scorers said of the initial model: kept beside its responses, in no manifest's list, so held against each other."""

import shlex
from collections.abc import Sequence
from itertools import product

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.records import Response, ResponseReward
from activedpo_cli.evaluate.initial_evaluation import METRICS_NAME, initial_metrics
from activedpo_cli.health.findings import Findings
from activedpo_cli.label.scoring import evaluated_rows
from activedpo_cli.store.audit import record_fault
from activedpo_cli.store.jsonl import encode_rows
from activedpo_cli.store.manifest import Manifest
from activedpo_cli.store.run import Run

Rewards = list[ResponseReward]


def verify_rewards(run: Run, record: Manifest, findings: Findings) -> None:
    """Look whether each file of rewards has one for every response, and whether the metrics are those of the rewards."""
    folder = run.initial_evaluation
    try:
        responses = [row for name in record.outputs for row in folder.read_rows(name, Response)]
    except (InvalidDataError, OSError):
        return  # said where it is
    before = len(findings.problems)
    known = [
        rows for name in folder.names("rewards-*.jsonl") if (rows := _read_rewards(run, name, responses, findings))
    ]
    if folder.has(METRICS_NAME) and len(findings.problems) == before:
        _verify_metrics(run, responses, known, findings)


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


def _verify_metrics(run: Run, responses: Sequence[Response], known: Sequence[Rewards], findings: Findings) -> None:
    """The metrics have to come out again of the rewards that are there; where these were deleted nothing can be said."""
    folder = run.initial_evaluation
    path = folder.path / METRICS_NAME
    again = f"{run.next_command('evaluate', (run.iterations() or [1])[-1])} --force"
    try:
        metrics = folder.read_json(METRICS_NAME)
        fault = record_fault(folder.path, METRICS_NAME)
        if fault is not None:
            findings.add_fault(folder.path, fault, again)
            return
        scorers = (metrics["scorer"], metrics["second_scorer"])
    except (InvalidDataError, LookupError, TypeError) as error:
        findings.add(path, "damaged", f"it can't be read: {error}", again)
        return
    choices = [[None] if spec is None else [rows for rows in known if rows[0].scorer == spec] for spec in scorers]
    if not all(choices):
        return
    for first, second in product(*choices):
        rows = evaluated_rows(responses, rewards=_numbers(first), second_rewards=_numbers(second))
        if initial_metrics(rows, scorers) == metrics:
            return
    findings.add(path, "changed", "its numbers are not those of the rewards beside it", again)


def _numbers(rows: Rewards | None) -> list[float] | None:
    return None if rows is None else [row.reward for row in rows]
