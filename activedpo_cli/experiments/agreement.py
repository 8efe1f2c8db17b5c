"""Whether a specification can be run, and whether the runs that stand are those that it describes: said before any work."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from activedpo_cli.base.config import build_config, flat, nested
from activedpo_cli.base.errors import ActiveDPOError, RefusedError, UsageError
from activedpo_cli.base.presets import read_preset
from activedpo_cli.base.settings import SECTIONS, Config
from activedpo_cli.engine.names import with_known_names
from activedpo_cli.experiments.folder import ExperimentFolder, Job
from activedpo_cli.models.resolve import resolve_model
from activedpo_cli.run.create import RunRequest, preset_for
from activedpo_cli.select.method_settings import method_settings


def check_standing(folder: ExperimentFolder) -> None:
    """Raise RefusedError where any run of the experiment was made with other settings than it has now.

    All of them are in the report, also those that this command was not asked for, so all have to agree. A setting that is
    left out counts as its default.
    """
    for job in folder.jobs():
        run = job.run
        if run is None or run.facts.get("given") == dict(job.settings):
            continue
        then = _values(str(run.facts["preset"]), run.facts["given"])
        now = _values(preset_for(RunRequest(job.path, folder.spec.preset, job.settings)), job.settings)
        differing = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
        if differing:
            raise RefusedError(
                f"`{job.path}` was made with other settings than the experiment has now",
                details=[f"{key}  {then.get(key, 'not set')} → {now.get(key, 'not set')}" for key in differing],
                hint="give the same settings again, or begin another folder with `--output FOLDER`",
            )


def check_arms(folder: ExperimentFolder, jobs: Sequence[Job]) -> None:
    """Raise the error that an arm's first run would end with: a wrong setting, name or model; the arm is named."""
    models: set[tuple[str, str | None]] = set()
    for job in {job.arm: job for job in reversed(jobs) if job.run is None}.values():
        preset = preset_for(RunRequest(job.path, folder.spec.preset, job.settings))
        try:
            config = _config(preset, with_known_names(job.settings))
            method_settings(config)
            model = config.model.name, config.model.revision
            if model not in models:
                resolve_model(*model)
                models.add(model)
        except ActiveDPOError as error:
            error.message = f"arm `{job.arm}`: {error.message}"
            raise


def check_source(path: Path | None) -> None:
    """Raise UsageError where the folder whose runs are to be used is none."""
    if path is not None and not (path / "runs").is_dir():
        raise UsageError(
            f"`{path}` holds no runs of an experiment", hint="name the folder of one: `--runs-from runs/NAME`"
        )


def _config(preset: str, settings: Mapping[str, Any]) -> Config:
    return build_config(nested(settings, read_preset(preset)))


def _values(preset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"preset": preset, **flat(_config(preset, settings), "seed", *SECTIONS)}
