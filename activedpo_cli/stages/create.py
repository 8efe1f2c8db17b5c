"""Make a run: settings, prompts and π_ref, fixed from the start. The folder appears only when it is whole."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from activedpo_cli import __version__
from activedpo_cli.artifacts import files, jsonl
from activedpo_cli.artifacts.lock import exclusive
from activedpo_cli.artifacts.run import Run
from activedpo_cli.config import CONFIG_NAME, build_config, flat, nested, render_config
from activedpo_cli.errors import RefusedError, UsageError
from activedpo_cli.models.resolve import ModelLocation, is_adapter_folder, model_digest, resolve_model
from activedpo_cli.presets import read_preset
from activedpo_cli.progress import Progress
from activedpo_cli.prompts._collect import PromptCollection, collect_prompts, source_path
from activedpo_cli.seeds import derive_seed
from activedpo_cli.settings import Config
from activedpo_cli.stages.differences import given_differences

RUN_SCHEMA = 1
BUILT_IN_MODEL = "tiny"


@dataclass(frozen=True)
class RunRequest:
    """What a new run is asked to be: a preset and given settings with dotted keys, by which command."""

    path: Path
    preset: str | None
    given: Mapping[str, Any]
    command: Sequence[str] = ()


def preset_for(request: RunRequest) -> str:
    """The preset asked for; else `paper` for a user's own prompts, and the built-in `tiny` task without them."""
    if request.preset is not None:
        return request.preset
    return "paper" if "prompts.source" in request.given else "tiny"


def ensure_run(request: RunRequest, progress: Progress) -> tuple[Run, bool]:
    """The run at the path, made now if there is none; says whether it was made.

    Raises RefusedError when there is one that was made with other settings than those given.
    """
    if (request.path / "run.json").is_file():
        run = Run.open(request.path)
        _refuse_other_settings(run, request)
        return run, False
    plan = _plan(request)
    with exclusive(request.path.parent / ".locks" / f"{request.path.name}.lock", str(request.path)):
        if not (request.path / "run.json").is_file():
            _make(request, plan, progress)
    return Run.open(request.path), True


def _refuse_other_settings(run: Run, request: RunRequest) -> None:
    given_differences(run, None, request.given)
    differences = [
        f"{key}  {old} → {request.given[key]}"
        for key, old in flat_given(run, request.given).items()
        if old != request.given[key]
    ]
    if request.preset is not None and run.facts["preset"] != request.preset:
        differences.append(f"preset  {run.facts['preset']} → {request.preset}")
    source = source_path(run.config.prompts.source)
    recorded = run.facts["prompts_source_digest"]
    if "prompts.source" in request.given and source and source.is_file() and files.sha256_of(source) != recorded:
        differences.append(f"the content of `{source}` has changed since the run was made")
    if differences:
        raise RefusedError(
            f"`{run.path}` was made with other settings",
            details=differences,
            hint="make another run with `--run OTHER_NAME`, or change settings of stages to come with their own flags",
        )


def flat_given(run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the run was made with, for the given settings that later flags may have changed since."""
    made_with: dict[str, Any] = run.facts["given"]
    return {key: made_with[key] for key in given if key in made_with and not key.startswith(("model.", "prompts."))}


@dataclass(frozen=True)
class _Plan:
    """What a new run will be made from; `location` is None for the built-in model."""

    preset: str
    config: Config
    prompts: PromptCollection
    location: ModelLocation | None


def _plan(request: RunRequest) -> _Plan:
    """Find and check everything before the first byte is written, so that a failure leaves nothing behind."""
    if request.path.exists() and any(request.path.iterdir()):
        raise UsageError(
            f"`{request.path}` exists and is not a run", hint="choose another name with --run, or empty the folder"
        )
    preset = preset_for(request)
    config = build_config(nested(request.given, read_preset(preset)))
    if preset == "paper" and "model.name" not in request.given:
        raise UsageError("a run with your own prompts needs a model", hint="add `--model NAME_OR_FOLDER`")
    built_in = config.model.name == BUILT_IN_MODEL and not Path(BUILT_IN_MODEL).is_dir()
    location = None if built_in else resolve_model(config.model.name, config.model.revision)
    return _Plan(preset, config, collect_prompts(config.prompts, config.seed), location)


def _make(request: RunRequest, plan: _Plan, progress: Progress) -> None:
    _report_duplicates(plan.prompts, progress)

    def save(folder: Path) -> None:
        _fill(folder, request, plan)

    if request.path.exists():
        request.path.rmdir()
    files.write_folder_with(request.path, save)
    progress.note(
        f"made `{request.path}` from preset `{plan.preset}`: {plan.config.model.name}, "
        f"{sum(row.split == 'train' for row in plan.prompts.prompts)} prompts in the pool, "
        f"{sum(row.split == 'eval' for row in plan.prompts.prompts)} held out"
    )


def _fill(folder: Path, request: RunRequest, plan: _Plan) -> None:
    prompts, config = plan.prompts, plan.config
    base = _prepare_reference(folder / "reference", plan)
    jsonl.write_json(folder / "reference" / "base.json", base)
    jsonl.write_rows(folder / "prompts.jsonl", prompts.prompts)
    files.write_bytes(folder / CONFIG_NAME, render_config(config).encode())
    facts = {
        "schema": RUN_SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "activedpo_cli": __version__,
        "command": list(request.command),
        "preset": plan.preset,
        "given": dict(request.given),
        "prompts_source_digest": prompts.source_digest,
        "prompts_digest": f"sha256:{files.sha256_of(folder / 'prompts.jsonl')}",
        "dropped_duplicates": len(prompts.dropped_duplicates),
        "fixed": flat(config, "seed", "model", "prompts"),
    }
    jsonl.write_json(folder / "run.json", facts)


def _prepare_reference(folder: Path, plan: _Plan) -> dict[str, Any]:
    """Point to π_SFT, or store it: the built-in model, and an adapter merged into its base."""
    stored = folder / "model"
    folder.mkdir(parents=True)
    if plan.location is None:
        from activedpo_cli.tiny.model import build_tiny_model

        build_tiny_model(stored, derive_seed(plan.config.seed, "tiny-model"))
    elif plan.location.path is not None and is_adapter_folder(plan.location.path):
        from activedpo_cli.models.merging import merge_adapter_model

        merge_adapter_model(Path(plan.location.path), stored)
    else:
        return model_digest(plan.location) | {"stored_in_run": False}
    here = ModelLocation(name=plan.config.model.name, path=str(stored), hub_id=None, revision=None)
    return model_digest(here) | {"path": "reference/model", "stored_in_run": True}


def _report_duplicates(prompts: PromptCollection, progress: Progress) -> None:
    dropped = prompts.dropped_duplicates
    if dropped:
        shown = ", ".join(dropped[:3]) + (", …" if len(dropped) > 3 else "")
        progress.warn(f"left out {len(dropped)} repeated prompts ({shown})")


def discard(run: Run) -> None:
    """Remove a run that was made by a command which then failed before any work began."""
    shutil.rmtree(run.path)
