"""What scorers said of the initial model: kept beside its responses, and listed in no manifest."""

import shlex

from activedpo_cli.artifacts.manifest import Manifest
from activedpo_cli.artifacts.run import Run
from activedpo_cli.errors import InvalidDataError
from activedpo_cli.records import Response, ResponseReward
from activedpo_cli.stages.findings import Findings
from activedpo_cli.stages.initial_evaluation import METRICS_NAME


def verify_rewards(run: Run, record: Manifest, findings: Findings) -> None:
    """Look whether each file of rewards has one for every response, and whether the metrics can be read."""
    folder = run.initial_evaluation
    try:
        wanted = [row.response_id for name in record.outputs for row in folder.read_rows(name, Response)]
    except (InvalidDataError, OSError):
        return  # said where it is
    for name in folder.names("rewards-*.jsonl"):
        try:
            found = [row.response_id for row in folder.read_rows(name, ResponseReward)]
            reason = None if found == wanted else "it does not have one reward for each response"
        except InvalidDataError as error:
            reason = "; ".join([error.message, *error.details])
        if reason:
            findings.add(folder.path / name, "damaged", reason, f"rm {shlex.quote(str(folder.path / name))}")
    if folder.has(METRICS_NAME):
        try:
            folder.read_json(METRICS_NAME)
        except InvalidDataError as error:
            again = f"{run.next_command('evaluate', (run.iterations() or [1])[-1])} --force"
            findings.add(folder.path / METRICS_NAME, "damaged", "; ".join([error.message, *error.details]), again)
