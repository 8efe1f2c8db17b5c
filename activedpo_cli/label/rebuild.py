"""Open a closed *label* stage again, to write its other files from the answers that it keeps."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from activedpo_cli.base.config import with_changes
from activedpo_cli.base.errors import InvalidDataError, RefusedError
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.records import Label, OutcomeRow
from activedpo_cli.engine.differences import all_settings
from activedpo_cli.engine.repairs import OUTCOMES_NAME
from activedpo_cli.engine.step import Stage
from activedpo_cli.store import files, manifest
from activedpo_cli.store.audit import file_fault
from activedpo_cli.store.manifest import MANIFEST_NAME, Started
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder


def has_damaged_record(folder: StageFolder) -> bool:
    """Whether there are answers, and what says how they were asked for can't be read."""
    try:
        return (folder.manifest or folder.started) is None and folder.has("labels.jsonl")
    except InvalidDataError:
        return folder.has("labels.jsonl")


def restore_answers(run: Run, folder: StageFolder, progress: Progress) -> None:
    """Put answers back that the log lost and that the closed stage's list of outcomes still has, byte for byte.

    They come back without times, annotators and notes. A damaged log is kept in `.stale`. Raises InvalidDataError, before
    anything is changed, where the log is damaged and the list is not what was written.
    """
    record = folder.manifest
    assert record is not None
    listed = record.outputs.get(OUTCOMES_NAME)
    is_whole = listed is not None and file_fault(folder.path, OUTCOMES_NAME, listed) is None
    log = folder.label_log()
    try:
        standing = log.labels()
        is_damaged = False
    except InvalidDataError:
        if not is_whole:
            raise
        standing, is_damaged = {}, True
    if not is_whole:
        return
    missing = [row for row in folder.read_rows(OUTCOMES_NAME, OutcomeRow) if row.pair_id not in standing]
    if not missing:
        return
    if is_damaged:
        _keep_aside(run, folder, log.path.name)
    log.repair()
    for row in missing:
        log.append(
            Label(
                pair_id=row.pair_id,
                outcome=row.outcome,
                preferred_id=row.preferred_id,
                oracle=row.oracle,
                score_a=row.score_a,
                score_b=row.score_b,
            )
        )
    progress.warn(
        f"{len(missing)} answers were restored from `{folder.path / OUTCOMES_NAME}`, without times, names and notes"
    )


def adopt_answers(run: Run, stage: Stage, iteration: int, given: Mapping[str, Any], progress: Progress) -> None:
    """Take answers over whose record is gone or damaged, with settings as `config.yaml` and flags have them now.

    The damaged record is kept in `.stale`. Raises RefusedError where the answers are of another oracle than these settings
    name, InvalidDataError where an answer is not intact.
    """
    folder = run.stage(stage.name, iteration)
    config = with_changes(run.config, given)
    others = {label.oracle for label in folder.label_log().labels().values()} - {config.label.oracle}
    if others:
        raise RefusedError(
            f"the answers in `{folder.path}` are those of `{sorted(others)[0]}`, and label.oracle is "
            f"`{config.label.oracle}`",
            hint=f"{run.next_command(stage.name, iteration)} --rebuild --oracle {sorted(others)[0]}",
        )
    started = Started(
        stage=stage.name,
        stage_version=stage.version,
        iteration=iteration,
        settings=stage.settings(config),
        inputs=stage.inputs(run, iteration, stage.seen(run, None, given)),
    )
    run.change_config(all_settings(config, given))
    manifest.write_started(folder.path, started)
    record = folder.path / MANIFEST_NAME
    if record.exists():
        progress.warn(f"`{record}` is damaged; it is now `{_keep_aside(run, folder, MANIFEST_NAME)}`")
    progress.warn(f"how the answers in `{folder.path}` were asked for is taken from `{run.path}/config.yaml`")


def _keep_aside(run: Run, folder: StageFolder, name: str) -> Path:
    moment = time.strftime("%Y%m%dT%H%M%S")
    kept = run.stale / f"{folder.path.parent.name}-{folder.path.name}-{moment}-{name}"
    files.move(folder.path / name, kept)
    return kept
