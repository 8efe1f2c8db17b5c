"""Make a run: settings, prompts and π_ref, fixed from the start. The folder appears only when it is whole."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from activedpo_cli.base.config import CONFIG_NAME, build_config, flat, nested, render_config, with_changes
from activedpo_cli.base.digests import digest_of_file, sha256_of
from activedpo_cli.base.errors import BusyError, RefusedError, UsageError
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.presets import read_preset
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.settings import AdapterSettings, Config
from activedpo_cli.base.version import __version__
from activedpo_cli.engine.differences import all_settings, given_differences, is_fixed, number_of_settings
from activedpo_cli.models.built_in import LANGUAGE_MODEL, is_built_in
from activedpo_cli.models.resolve import ModelLocation, is_adapter_folder, is_gguf_file, model_digest, resolve_model
from activedpo_cli.prompts._collect import PromptCollection, collect_prompts, source_path
from activedpo_cli.store import files, jsonl
from activedpo_cli.store.lock import exclusive
from activedpo_cli.store.manifest import digest_of
from activedpo_cli.store.run import SFT, Run
from activedpo_cli.store.run_record import RUN_SCHEMA, read_base, read_facts

BUILT_IN_PRESET = "tiny"
LOCKS = ".locks"


@dataclass(frozen=True)
class RunRequest:
    """What a new run is asked to be: a preset and given settings with dotted keys, by which command.

    `patience` is how many seconds another process that makes it is waited for, None as long as it takes.
    """

    path: Path
    preset: str | None
    given: Mapping[str, Any]
    command: Sequence[str] = ()
    patience: float | None = 0.0


def preset_for(request: RunRequest) -> str:
    """The preset asked for; else `paper` for a user's own prompts, and the built-in `tiny` task without them."""
    if request.preset is not None:
        return request.preset
    return "paper" if "prompts.source" in request.given else BUILT_IN_PRESET


def open_run(path: Path) -> Run:
    """The run in a folder; raises NotReadyError when there is none, InvalidDataError when its records are damaged."""
    run = Run.open(path)
    read_facts(path)
    read_base(path)
    return run


def ensure_run(request: RunRequest, progress: Progress) -> tuple[Run, bool]:
    """The run at the path, made now if there is none; says whether this call made it.

    Raises RefusedError when there is one whose settings are others than those given.
    """
    if not _is_run(request.path):
        plan = _plan(request)
        with exclusive(_creation_lock(request.path), str(request.path), request.patience):
            if not _is_run(request.path):  # another process may have made it since
                _make(request, plan, progress)
                _note_scale(plan.config, request.given, progress)
                return open_run(request.path), True
    run = open_run(request.path)
    _refuse_other_settings(run, request)
    return run, False


def find_run(request: RunRequest, progress: Progress, *, make: bool = True) -> tuple[Run, bool]:
    """The run at the path for a command that may change settings of stages to come; says whether it was made now.

    Raises RefusedError when what is given contradicts what is fixed when a run is made.
    """
    if make and not _is_run(request.path):
        return ensure_run(request, progress)
    run = open_run(request.path)
    _refuse(run, _differences_in_what_is_fixed(run, request))
    wanted = with_changes(run.config, request.given)
    if wanted.adapter.r != run.config.adapter.r:
        _note_scale(wanted, request.given, progress)
    return run, False


def _creation_lock(path: Path) -> Path:
    """The lock held by whoever makes a run or takes it away again."""
    return path.parent / LOCKS / f"{path.name}.lock"


def _is_run(path: Path) -> bool:
    return (path / "run.json").is_file()


def _refuse_other_settings(run: Run, request: RunRequest) -> None:
    differences = _differences_in_what_is_fixed(run, request)
    now = all_settings(run.config, request.given)
    wanted = all_settings(with_changes(run.config, request.given), request.given)
    differences += [
        f"{key}  {now.get(key, 'not set')} → {value}"
        for key, value in wanted.items()
        if not is_fixed(key) and (key not in now or now[key] != value)
    ]
    _refuse(run, differences)


def _differences_in_what_is_fixed(run: Run, request: RunRequest) -> list[str]:
    given_differences(run, None, request.given)
    facts, differences = run.facts, []
    if request.preset is not None and facts["preset"] != request.preset:
        differences.append(f"preset  {facts['preset']} → {request.preset}")
    source = source_path(run.config.prompts.source)
    recorded = facts["prompts_source_digest"]
    if "prompts.source" in request.given and source and source.is_file() and sha256_of(source) != recorded:
        differences.append(f"the content of `{source}` has changed since the run was made")
    if "model.name" in request.given:
        differences += _changed_packed_weights(run)
    return differences


def _changed_packed_weights(run: Run) -> list[str]:
    """Say where the file that the run's weights were converted from is another one now; one that is gone is not missed."""
    packed = run.given_base.get("converted_from")
    if packed is None or not is_gguf_file(packed["path"]) or sha256_of(Path(packed["path"])) == packed["sha256"]:
        return []
    return [f"the content of `{packed['path']}` has changed since the run was made"]


def _refuse(run: Run, differences: list[str]) -> None:
    if differences:
        raise RefusedError(
            f"`{run.path}` was made with other settings",
            details=differences,
            hint="make another run with `--run OTHER_NAME`, or change settings of stages to come with their own flags",
        )


@dataclass(frozen=True)
class _Plan:
    """What a new run will be made from."""

    preset: str
    config: Config
    prompts: PromptCollection
    location: ModelLocation


def _plan(request: RunRequest) -> _Plan:
    """Find and check everything before the first byte is written, so that a failure leaves nothing behind."""
    if request.path.is_symlink() and not request.path.exists():
        raise UsageError(
            f"`{request.path}` is a link to `{request.path.readlink()}`, where nothing is",
            hint="remove the link, or choose another name with --run",
        )
    if _is_occupied(request.path) and not _is_run(request.path):
        if any(request.path.glob("iter-*")):
            Run.open(request.path)  # raises an error that says what is gone
        raise UsageError(
            f"`{request.path}` exists and is not a run", hint="choose another name with --run, or empty the folder"
        )
    preset = preset_for(request)
    config = build_config(nested(request.given, read_preset(preset)))
    if preset == "paper" and "model.name" not in request.given:
        raise UsageError("a run with your own prompts needs a model", hint="add `--model NAME_OR_FOLDER`")
    location = resolve_model(config.model.name, config.model.revision, may_be_packed=True)
    are_pairs = config.generate.recorded_pairs == "given"
    # Rows without a prompt are passed over here, since the reader of pairs counts them.
    prompts = collect_prompts(config.prompts, config.seed, skip_empty=are_pairs)
    return _Plan(preset, config, prompts, location)


def _is_occupied(path: Path) -> bool:
    """Whether a folder holds anything but locks, which a command leaves behind when its run is discarded meanwhile."""
    return path.exists() and any(entry.name != LOCKS for entry in path.iterdir())


def _make(request: RunRequest, plan: _Plan, progress: Progress) -> None:
    # Where pairs are given, a prompt repeats once for each of its pairs, and nothing is lost.
    if plan.config.generate.recorded_pairs == "all":
        _report_duplicates(plan, progress)
    _report_foreign_preset(request, plan, progress)

    def save(folder: Path) -> None:
        _fill(folder, request, plan, progress)

    if request.path.exists() and not _is_occupied(request.path):
        files.remove(request.path)
    files.write_folder_with(request.path, save)
    progress.note(
        f"made `{request.path}` from preset `{plan.preset}`: {plan.config.model.name}, "
        f"{counted(sum(row.split == 'train' for row in plan.prompts.prompts), 'prompt')} in the pool, "
        f"{sum(row.split == 'eval' for row in plan.prompts.prompts)} held out"
    )


def _fill(folder: Path, request: RunRequest, plan: _Plan, progress: Progress) -> None:
    prompts, config = plan.prompts, plan.config
    base = _prepare_reference(folder / "reference", plan, progress)
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
        "prompts_digest": digest_of_file(folder / "prompts.jsonl"),
        "dropped_duplicates": len(prompts.dropped_duplicates),
        "fixed": flat(config, "seed", "model", "prompts"),
        "config_settings": number_of_settings(),
    }
    jsonl.write_json(folder / "run.json", facts | {"checksum": digest_of(facts)})


def _prepare_reference(folder: Path, plan: _Plan, progress: Progress) -> dict[str, Any]:
    """Point to π_SFT, or store it: the built-in model, an adapter merged into its base, a GGUF file converted."""
    stored = folder / "model"
    path = None if plan.location.path is None else Path(plan.location.path)
    files.make_folder(folder)
    origin: dict[str, Any] = {}
    if is_built_in(plan.config.model.name):
        files.copy_folder(LANGUAGE_MODEL, stored)
    elif path is not None and is_adapter_folder(path):
        from activedpo_cli.models.merging import merge_adapter_model

        merge_adapter_model(path, stored)
    elif path is not None and is_gguf_file(path):
        from activedpo_cli.models.gguf_files import convert_gguf

        progress.note(f"converted `{path}` ({convert_gguf(path, plan.config.model.dtype, stored)})")
        origin = {"converted_from": {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)}}
    else:
        return model_digest(plan.location) | {"stored_in_run": False}
    here = ModelLocation(name=plan.config.model.name, path=str(stored), hub_id=None, revision=None)
    return model_digest(here) | {"path": "reference/model", "stored_in_run": True} | origin


def _report_duplicates(plan: _Plan, progress: Progress) -> None:
    """Say which rows repeat a prompt: as a warning, but where the file has a row for each of its responses."""
    dropped = plan.prompts.dropped_duplicates
    if not dropped:
        return
    shown = ", ".join(dropped[:3]) + (", …" if len(dropped) > 3 else "")
    said = f"{counted(len(dropped), 'row', ('repeats', 'repeat'))} the prompt of an earlier one ({shown})"
    source, responses = source_path(plan.config.prompts.source), plan.config.generate.responses
    if source is not None and responses is not None and source.absolute() == Path(responses).expanduser().absolute():
        progress.note(f"{said}: a prompt is in the run once, with the responses of all its rows")
    else:
        progress.warn(f"{said}: a prompt is in the run once")


def _report_foreign_preset(request: RunRequest, plan: _Plan, progress: Progress) -> None:
    """Warn of settings that another model than the built-in one gets from the built-in task, which nobody would choose."""
    if plan.preset != BUILT_IN_PRESET or is_built_in(plan.config.model.name):
        return
    words = {
        "prompts.source": "prompts",
        "label.oracle": "reward model",
        "evaluate.second_scorer": "second scorer",
        "train.learning_rate": f"learning rate {plan.config.train.learning_rate:g}",
    }
    inherited = [word for key, word in words.items() if key not in request.given]
    if inherited:
        advice = "leave --preset out" if "prompts.source" in request.given else "give --prompts FILE for your own"
        progress.warn(
            f"preset `{plan.preset}` is for the built-in task, and model `{plan.config.model.name}` gets its "
            f"{', '.join(inherited)}; {advice}"
        )


def _note_scale(config: Config, given: Mapping[str, Any], progress: Progress) -> None:
    """Say by what LoRA's update is multiplied where a rank was given without an alpha, which then is another run's."""
    adapter, usual = config.adapter, AdapterSettings()
    scale, usual_scale = adapter.lora_alpha / adapter.r, usual.lora_alpha / usual.r
    if adapter.use_rslora:
        scale = adapter.lora_alpha / math.sqrt(adapter.r)
        progress.note(
            f"adapter.use_rslora multiplies updates by {scale:g}, lora_alpha / √r; the paper's {usual_scale:g} would be "
            f"--lora-alpha {usual_scale * math.sqrt(adapter.r):g}"
        )
    elif "adapter.r" in given and "adapter.lora_alpha" not in given and scale != usual_scale:
        progress.note(
            f"adapter.r is {adapter.r} and adapter.lora_alpha stays {adapter.lora_alpha:g}, so updates are multiplied by "
            f"{scale:g}; the paper's {usual_scale:g} would be --lora-alpha {usual_scale * adapter.r:g}"
        )


def discard(run: Run) -> bool:
    """Remove a run that this process has made, unless anything has begun in it, here or in another process.

    Returns whether it was removed.
    """
    try:
        # Nothing can begin before one of these stages does, so nobody works in the run while their locks are held.
        with (
            exclusive(_creation_lock(run.path), str(run.path)),
            exclusive(run.lock_path("iter-001-generate"), str(run.path)),
            exclusive(run.lock_path(f"reference-{SFT}"), str(run.path)),
        ):
            if run.iterations() or run.stage(SFT, 0).path.exists():
                return False
            files.remove(run.path)
    except BusyError:
        return False
    return True
