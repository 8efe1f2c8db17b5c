"""Cut at any byte, an artifact is refused by what reads it, or by what compares it with what was written; never misread."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import make_partial
from damage import holding

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError
from activedpo_cli.base.records import (
    EvaluatedResponse,
    FeatureRow,
    LabelledPairRow,
    OutcomeRow,
    Preference,
    Prompt,
    Response,
    SelectedPair,
)
from activedpo_cli.engine.differences import refuse_changed_fixed_settings
from activedpo_cli.engine.intact import prompts_fault
from activedpo_cli.run.loop import iterations_asked_for
from activedpo_cli.store import jsonl
from activedpo_cli.store.audit import file_fault, record_fault
from activedpo_cli.store.label_log import LabelLog
from activedpo_cli.store.manifest import read_manifest, read_started
from activedpo_cli.store.run import Run

RECORDS: dict[str, Callable[[Run], Any]] = {
    "run.json": lambda run: run.facts,
    "reference/base.json": lambda run: run.base,
    "loop.json": iterations_asked_for,
    "reference/evaluate/manifest.json": lambda run: run.initial_evaluation.manifest,
    **{
        f"iter-002/{stage}/manifest.json": lambda run, stage=stage: read_manifest(run.path / "iter-002" / stage)
        for stage in ("generate", "select", "label", "evaluate")
    },
}
ROWS: dict[str, Any] = {
    "generate/responses-00001.jsonl": Response,
    "featurize/rows.jsonl": FeatureRow,
    "featurize/labelled.jsonl": LabelledPairRow,
    "select/selection.jsonl": SelectedPair,
    "label/outcomes.jsonl": OutcomeRow,
    "label/preferences.jsonl": Preference,
    "evaluate/samples.jsonl": EvaluatedResponse,
}


def cuts(path: Path) -> Iterator[int]:
    """Shorten a file byte by byte down to nothing, each time saying how much is left."""
    for end in reversed(range(path.stat().st_size)):
        os.truncate(path, end)
        yield end


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_cut_at_any_byte(whole: Path, name: str) -> None:
    run, path = Run(whole), whole / name
    data = path.read_bytes()
    assert RECORDS[name](run)
    with holding(path, data):
        for end in cuts(path):
            if end < len(data) - 1:
                with pytest.raises(InvalidDataError, match=path.name):
                    RECORDS[name](run)
            else:  # only the newline at the end is gone
                assert RECORDS[name](run)
                fault = record_fault(path.parent, path.name)
                assert fault is not None
                assert fault.name == path.name


def test_the_note_of_begun_work_cut_at_any_byte(finished: Path) -> None:
    path = make_partial(finished, 2, "label") / "started.json"
    assert read_started(path.parent)
    for _ in cuts(path):
        with pytest.raises(InvalidDataError, match=r"started\.json"):
            read_started(path.parent)


@pytest.mark.parametrize("name", ROWS)
def test_rows_cut_at_any_byte(whole: Path, name: str) -> None:
    """Between two rows nothing is wrong with what is left: the manifest knows better."""
    path = whole / "iter-002" / name
    listed = Run(whole).stage(path.parent.name, 2).manifest
    assert listed is not None
    data, all_rows = path.read_bytes(), jsonl.read_rows(path, ROWS[name])
    assert file_fault(path.parent, path.name, listed.outputs[path.name]) is None
    with holding(path, data):
        for end in cuts(path):
            fault = file_fault(path.parent, path.name, listed.outputs[path.name])
            assert fault is not None
            assert (fault.name, fault.kind) == (path.name, "truncated")
            at_row = end == 0 or data[end - 1 : end] == b"\n"
            if at_row or data[end : end + 1] == b"\n":
                assert jsonl.read_rows(path, ROWS[name]) == all_rows[: data[:end].count(b"\n") + (not at_row)]
            else:
                line = data[:end].count(b"\n") + 1
                with pytest.raises(InvalidDataError, match=rf"{path.name}` line {line} "):
                    jsonl.read_rows(path, ROWS[name])
            assert at_row or data[end : end + 1] == b"\n" or f"line {data[:end].count(bytes([10])) + 1}" in fault.what


def test_answers_cut_at_any_byte(whole: Path) -> None:
    path = whole / "iter-002" / "label" / "labels.jsonl"
    data, given = path.read_bytes(), list(LabelLog(path).labels().items())
    assert len(given) == data.count(b"\n") > 2
    with holding(path, data):
        for end in cuts(path):
            assert list(LabelLog(path).labels().items()) == given[: data[:end].count(b"\n")]


def test_prompts_cut_at_any_byte(whole: Path) -> None:
    run, path = Run(whole), whole / "prompts.jsonl"
    assert len(run.prompts()) == 24
    data = path.read_bytes()
    with holding(path, data):
        for _ in cuts(path):
            fault = prompts_fault(run)
            assert fault is not None
            assert fault.kind == "changed"
    assert jsonl.read_rows(path, Prompt) == run.prompts()


def test_no_default_takes_the_place_of_a_setting_that_was_cut_off(whole: Path) -> None:
    """What is left of a YAML file is YAML, at the end of any line and often within one."""
    run, path = Run(whole), whole / "config.yaml"
    data, config = path.read_bytes(), run.config
    ends = {
        *range(0, len(data), 149),
        *(n + 1 for n, byte in enumerate(data) if byte == 10 and n % 3 == 0),
        len(data) - 1,
    }
    refused = 0
    with holding(path, data):
        for end in sorted(ends - {len(data)}):
            path.write_bytes(data[:end])
            refusal = refusal_of_settings(run)
            if refusal is None:
                assert run.config == config, f"a setting was lost at byte {end}"
            else:
                refused += 1
                assert "config.yaml" in refusal.message
                assert refusal.exit_code in (2, 3, 4)
    assert refused > 0.9 * len(ends)


def refusal_of_settings(run: Run) -> ActiveDPOError | None:
    try:
        refuse_changed_fixed_settings(run)
    except ActiveDPOError as error:
        return error
    return None


def test_the_number_of_settings_is_that_of_the_file(whole: Path) -> None:
    facts = json.loads((whole / "run.json").read_bytes())
    lines = (whole / "config.yaml").read_text().splitlines()
    sections = sum(line.partition("#")[0].rstrip().endswith(":") for line in lines)
    assert facts["config_settings"] == sum(":" in line.partition("#")[0] for line in lines) - sections
