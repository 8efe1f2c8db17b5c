"""What a run has made, as rows of columns: its responses, its choices, what people preferred, and what was measured."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from activedpo_cli.base.errors import NotReadyError
from activedpo_cli.base.records import SelectedPair
from activedpo_cli.base.regular_files import lines_of
from activedpo_cli.engine.intact import check_file, check_intact
from activedpo_cli.engine.step import require
from activedpo_cli.run.status import evaluations
from activedpo_cli.store.run import Run

Records = list[dict[str, Any]]

OUTCOMES = ("tie", "both_bad", "skip", "unanswered")
"""What a closed stage counts beside preferences."""
DONE = {"generate": "has responses", "select": "has a choice of pairs", "label": "is labelled", "train": "is trained"}
"""What is true of an iteration where a stage is finished."""


def finished_iterations(run: Run, stage: str) -> list[int]:
    """The iterations in which a stage is finished; raises NotReadyError, with the next command, where there is none."""
    found = [number for number in run.iterations() if run.stage(stage, number).manifest is not None]
    if not found:
        newest = max(run.iterations(), default=1)
        raise NotReadyError(f"no iteration of `{run.path}` {DONE[stage]}", hint=run.next_command(stage, newest))
    return found


def preference_records(run: Run, iteration: int) -> tuple[Records, Mapping[str, int]]:
    """The rows of `label/preferences.jsonl` of one closed iteration, and how many pairs have no preference, by outcome.

    Raises NotReadyError where it is not labelled or stale, and InvalidDataError where its files were changed.
    """
    require(run, "label", iteration)
    folder = run.stage("label", iteration)
    check_intact(run, folder)
    record = folder.manifest
    assert record is not None
    rows = [json.loads(line) for line in lines_of(folder.path / "preferences.jsonl")]
    return rows, Counter({name: record.summary.get(name, 0) for name in OUTCOMES})


def response_records(run: Run, iteration: int) -> Records:
    """The responses of one iteration with their prompts and tokens; raises as `preference_records` does."""
    require(run, "generate", iteration)
    check_intact(run, run.stage("generate", iteration))
    prompts = {prompt.prompt_id: prompt.prompt for prompt in run.prompts()}
    return [
        {
            "iteration": iteration,
            "response_id": row.response_id,
            "prompt_id": row.prompt_id,
            "prompt": prompts[row.prompt_id],
            "completion": row.text,
            "finish_reason": row.finish_reason,
            "scores": row.scores,
            "prompt_token_ids": row.prompt_token_ids,
            "token_ids": row.token_ids,
        }
        for row in run.responses(iteration)
    ]


def choice_records(run: Run, iteration: int) -> Records:
    """The pairs that *select* chose in one iteration, best first, with their texts; raises as `preference_records` does."""
    require(run, "select", iteration)
    folder = run.stage("select", iteration)
    check_file(run, folder, "selection.jsonl")
    record = folder.manifest
    assert record is not None
    prompts = {prompt.prompt_id: prompt.prompt for prompt in run.prompts()}
    texts = {row.response_id: row.text for row in run.responses(iteration)}
    return [
        {
            "iteration": iteration,
            "rank": row.rank,
            "pair_id": row.pair_id,
            "prompt_id": row.prompt_id,
            "method": record.settings["select.method"],
            "score": row.score,
            "prompt": prompts[row.prompt_id],
            "response_a": texts[row.response_a_id],
            "response_b": texts[row.response_b_id],
            "response_a_id": row.response_a_id,
            "response_b_id": row.response_b_id,
        }
        for row in folder.read_rows("selection.jsonl", SelectedPair)
    ]


def evaluation_records(run: Run) -> Records:
    """`metrics.json` of the initial model and of every evaluated iteration; raises NotReadyError where there is none."""
    found = evaluations(run)
    if not found:
        newest = max(run.iterations(), default=1)
        raise NotReadyError(f"nothing of `{run.path}` is evaluated", hint=run.next_command("evaluate", newest))
    return found


def alike(rows: Iterable[Mapping[str, Any]]) -> Records:
    """Rows with the same columns in the same order, None where one has nothing.

    Where the prompt of any is a list of messages, a chat template reads all, and a text is the message of a user.
    """
    found = list(rows)
    names = dict.fromkeys(name for row in found for name in row)
    has_messages = any(isinstance(row.get("prompt"), list) for row in found)

    def value(row: Mapping[str, Any], name: str) -> Any:
        if name == "prompt" and has_messages and isinstance(row.get(name), str):
            return [{"role": "user", "content": row[name]}]
        return row.get(name)

    return [{name: value(row, name) for name in names} for row in found]
