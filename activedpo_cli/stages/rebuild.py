"""Open a closed *label* stage again, to write its other files from the answers that it keeps."""

import time
from collections.abc import Mapping
from typing import Any

from activedpo_cli.artifacts import files, manifest
from activedpo_cli.artifacts.manifest import MANIFEST_NAME, Started
from activedpo_cli.artifacts.run import Run
from activedpo_cli.artifacts.stage_folder import StageFolder
from activedpo_cli.errors import InvalidDataError, RefusedError
from activedpo_cli.progress import Progress
from activedpo_cli.stages.base import Stage, recorded_config
from activedpo_cli.stages.differences import all_settings


def has_damaged_record(folder: StageFolder) -> bool:
    """Whether there are answers, and what says how they were asked for can't be read."""
    try:
        return (folder.manifest or folder.started) is None and folder.has("labels.jsonl")
    except InvalidDataError:
        return folder.has("labels.jsonl")


def adopt_answers(run: Run, stage: Stage, iteration: int, given: Mapping[str, Any], progress: Progress) -> None:
    """Take answers over whose record is gone or damaged, with settings as `config.yaml` and flags have them now.

    The damaged record is kept in `.stale`. Raises RefusedError where the answers are of another oracle than these settings
    name, InvalidDataError where an answer is not intact.
    """
    folder = run.stage(stage.name, iteration)
    config = recorded_config(run, None, given)
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
        inputs=stage.inputs(run, iteration, config),
    )
    run.change_config(all_settings(config, given))
    manifest.write_started(folder.path, started)
    record = folder.path / MANIFEST_NAME
    if record.exists():
        kept = run.stale / f"{folder.path.parent.name}-{stage.name}-{time.strftime('%Y%m%dT%H%M%S')}-{MANIFEST_NAME}"
        files.move(record, kept)
        progress.warn(f"`{record}` is damaged; it is now `{kept}`")
    progress.warn(f"how the answers in `{folder.path}` were asked for is taken from `{run.path}/config.yaml`")
