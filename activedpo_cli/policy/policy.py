"""Bring a policy of the run into memory: π_ref, and θ_t as an adapter on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.config import flat
from activedpo_cli.base.errors import NotReadyError, RefusedError
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.differences import differences_of_work
from activedpo_cli.engine.intact import check_intact
from activedpo_cli.engine.parts import Part, ensure
from activedpo_cli.engine.step import Context, Execution
from activedpo_cli.engine.units import AtOnce
from activedpo_cli.store.manifest import MANIFEST_NAME, Started
from activedpo_cli.store.run import SFT, Run
from activedpo_cli.store.stage_folder import StageFolder

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from activedpo_cli.models.quantization import Quantization

ADAPTER_VERSION = 1


@dataclass(frozen=True)
class BaseWeights:
    """π_ref in memory, with its tokenizer and its digest-checked location."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    device: "torch.device"


def model_location(run: Run) -> tuple[str, str | None]:
    """Folder or hub id of π_ref, and its revision; raises RefusedError when the weights are no longer the same."""
    return weights_location(run, run.base)


def weights_location(run: Run, base: Mapping[str, Any]) -> tuple[str, str | None]:
    """Folder or hub id of recorded weights, and their revision; raises RefusedError when they are no longer the same."""
    from activedpo_cli.models.resolve import check_unchanged

    if base["stored_in_run"]:
        path = str(run.path / base["path"])
        check_unchanged({**base, "path": path})
        return path, None
    check_unchanged(dict(base))
    return (base["path"], None) if base["path"] else (base["hub_id"], base["revision"])


def load_tokenizer_of(run: Run) -> "PreTrainedTokenizerBase":
    """The tokenizer of π_ref."""
    from activedpo_cli.models.loading import load_tokenizer

    return load_tokenizer(*model_location(run))


def hidden_size(run: Run) -> int:
    """The width of π_ref's hidden states, from its configuration alone."""
    from activedpo_cli.models.loading import hidden_size_at

    return hidden_size_at(*model_location(run))


def load_reference(run: Run, config: Config, execution: Execution) -> BaseWeights:
    """Load π_ref, frozen, in as many bits as `model.quantization` says."""
    return load_base(model_location(run), config, execution, quantization=config.model.quantization)


def load_base(
    where: tuple[str, str | None], config: Config, execution: Execution, *, quantization: "Quantization" = "none"
) -> BaseWeights:
    """Load the weights of a folder or hub id and revision, frozen, as every stage does; *sft* takes them as they are."""
    from activedpo_cli.models import loading
    from activedpo_cli.models.placement import BALANCED

    location, revision = where
    is_spread = execution.device == BALANCED
    device = loading.pick_device(execution.device, may_spread=True)

    def load() -> "PreTrainedModel":
        return loading.load_base_model(
            location,
            revision=revision,
            dtype=config.model.dtype,
            device=device,
            attn_implementation=config.model.attn_implementation,
            quantization=quantization,
            is_spread=is_spread,
        )

    key = (
        location,
        revision,
        config.model.dtype,
        str(device),
        config.model.attn_implementation,
        quantization,
        is_spread,
    )
    model = load() if execution.kept is None else execution.kept.model(key, load)
    return BaseWeights(model, loading.load_tokenizer(location, revision), device)


def load_policy(
    context: Context, after_iteration: int, *, trainable: bool = False
) -> "tuple[PeftModel, PreTrainedTokenizerBase, torch.device]":
    """Load θ after an iteration (0: the initial adapter) on top of π_ref; returns policy, tokenizer and device."""
    from activedpo_cli.models.adapters import attach_adapter

    run, config, execution, progress = context.run, context.settings, context.execution, context.progress
    reference = load_reference(run, config, execution)
    try:
        if after_iteration == 0:
            ensure_initial_adapter(run, config, reference.model, execution, progress)
        policy = attach_adapter(reference.model, run.adapter_path(after_iteration), trainable=trainable)
    except BaseException:
        if execution.kept is not None:
            execution.kept.forget()
        raise
    if execution.kept is not None:
        execution.kept.attached(policy)
    return policy, reference.tokenizer, reference.device


def check_adapter_settings(run: Run, config: Config) -> None:
    """Raise RefusedError when the run's adapter was made with other settings than these, and something with it."""
    made = run.initial_adapter.manifest
    if made is not None:
        _refuse_other_adapter(run, differences_of_work(made, _wanted_adapter(run, config)))


def _wanted_adapter(run: Run, config: Config) -> Started:
    return Started(
        stage="initial-adapter",
        stage_version=ADAPTER_VERSION,
        iteration=0,
        settings={"seed": config.seed, **flat(config, "adapter")},
        inputs={"reference": reference_digest(run)},
    )


def _refuse_other_adapter(run: Run, differences: list[str]) -> None:
    """Raise RefusedError where a stage was finished with the run's adapter; one that only a failed command made may go."""
    stages = (run.stage(name, iteration) for iteration in run.iterations() for name in ("featurize", "train"))
    if differences and any(stage.has(MANIFEST_NAME) for stage in stages):
        raise RefusedError(
            "the run's adapter was made with other settings, which are fixed once it is made",
            details=differences,
            hint="make another run with `activedpo init --run OTHER_NAME …`",
        )


def ensure_initial_adapter(
    run: Run, config: Config, base_model: "PreTrainedModel", execution: Execution, progress: Progress
) -> None:
    """Make the seeded initial adapter (B = 0) if it is not there yet; featurize and train both start from it.

    One with other settings, with which nothing was finished, is moved to `.stale/`.
    """
    from activedpo_cli.models.adapters import create_initial_adapter

    seed = derive_seed(config.seed, "initial-adapter")

    def save(destination: Path) -> None:
        create_initial_adapter(base_model, config.adapter, seed=seed, destination=destination, base_name=base_name(run))

    def make(folder: StageFolder) -> dict[str, Any]:
        folder.write_folder("adapter", save)
        return {}

    adapter = Part(
        folder=run.initial_adapter,
        lock=run.lock_path("initial-adapter"),
        wanted=_wanted_adapter(run, config),
        open=lambda folder: AtOnce(lambda: make(folder)),
        stale=run.stale,
        is_usable=lambda folder: check_intact(run, folder),
        refuse=lambda differences: _refuse_other_adapter(run, differences),
    )
    ensure(adapter, execution, progress)


def reference_digest(run: Run) -> str:
    """The identity of π_ref; raises NotReadyError while *sft* is to make it and has not."""
    folder = run.stage(SFT, 0)
    if not folder.manifest and (folder.started or (run.config.sft.data and not run.has_begun())):
        state = "not finished" if folder.started else "missing, and `sft.data` is set"
        raise NotReadyError(f"`{SFT}`, which makes the reference, is {state}", hint=run.next_command(SFT, 0))
    return run.base["digest"]


def base_name(run: Run) -> str:
    """What `adapter_config.json` calls the base model."""
    base: Mapping[str, Any] = run.base
    return base["path"] if base["stored_in_run"] else base["hub_id"] or base["path"]
