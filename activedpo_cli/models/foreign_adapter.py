"""What an adapter made elsewhere says and holds beside its own weights: its base and how to read it, embeddings of the base.

PEFT stores the base's embeddings with an adapter where it adapts them, or where the vocabulary was resized before training.
It loads whatever it finds, leaves out fields that it does not know, and says so in a warning alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PromptLearningConfig
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.random_state import seeded_library_state

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
WRAPPERS = {"base_layer", "original_module", "modules_to_save", "token_adapter"}
"""What PEFT puts between a layer's name and `weight` where it wraps the layer."""
MERGE_ELSEWHERE = (
    "merge it where it was trained (`merge_and_unload()`, then `save_pretrained(FOLDER)`) and pass that FOLDER"
)

CHANGED_BASES = {
    "corda": "the start by which it was trained changed the base, too, and can't be computed again without its data",
    "lora_ga": "the start by which it was trained changed the base, too, and can't be computed again without its data",
    "loftq": "the start by which it was trained put a quantized base in the place of its base",
    "pissa_niter": "the start by which it was trained changed the base by a random approximation that nobody can repeat",
}
"""By the beginning of `init_lora_weights`: adapters that belong to another base than they name, see PEFT's documentation."""

KINDS = {str(kind.value): settings for kind, settings in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
"""The settings of every kind of adapter that the installed PEFT knows."""

UNMERGED = {
    "alora_invocation_tokens": "it works from certain tokens on, which no weights can say",
    "arrow_config": "it chooses among several adapters for each token, which no weights can say",
    "layer_replication": "it repeats layers of its base, which then share weights",
}
"""Fields of adapters that can't become weights of their base."""


@dataclass(frozen=True, kw_only=True)
class ForeignAdapter:
    """The model that an adapter was made for: folder or hub id, and the commit where one is named."""

    base_name: str
    revision: str | None


def read_adapter(folder: Path) -> ForeignAdapter:
    """What `adapter_config.json` names as the base.

    Raises InvalidDataError, naming the field, where merging would not give what was trained: for other kinds of adapters
    than LoRA, fields that this version of PEFT does not know, and those of `CHANGED_BASES` and `UNMERGED`.
    """
    config = _read_config(folder)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not name:
        raise InvalidDataError(f"the adapter in `{folder}` does not name its base model")
    if not isinstance(revision, str | None):
        raise InvalidDataError(f"`revision` in `{folder / CONFIG_FILE}` is not the name of a commit, branch or tag")
    _require_known_kind(folder, config)
    return ForeignAdapter(base_name=name, revision=revision or None)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads(read_limited(folder / CONFIG_FILE))
    except (ValueError, RecursionError) as error:
        raise InvalidDataError(f"`{folder / CONFIG_FILE}` is not the settings of an adapter") from error
    if not isinstance(config, dict):
        raise InvalidDataError(f"`{folder / CONFIG_FILE}` is not the settings of an adapter")
    return config


def _require_known_kind(folder: Path, config: Mapping[str, Any]) -> None:
    kind, task = config.get("peft_type") or "LORA", config.get("task_type")
    settings = KINDS.get(str(kind))
    if settings is None or issubclass(settings, PromptLearningConfig):
        raise _unfit(folder, f"`peft_type` is {kind}, which is no change of the base's weights that can be read here")
    if task not in ("CAUSAL_LM", None):
        raise _unfit(folder, f"`task_type` is {task}, and the model has to be a causal language model")
    start = str(config.get("init_lora_weights")).lower()
    for name, reason in CHANGED_BASES.items():
        if start.startswith(name):
            raise _unfit(folder, f"`init_lora_weights` is {start}: {reason}")
    for name, reason in UNMERGED.items():
        if config.get(name):
            raise _unfit(folder, f"`{name}` is set: {reason}")
    known = {field.name for field in fields(settings)}
    # Fields that are off, and numbers that only say how what is off would work, change nothing.
    unknown = sorted(name for name, value in config.items() if name not in known and _says_something(value))
    if unknown:
        made_by = config.get("peft_version")
        raise _unfit(
            folder,
            f"the installed PEFT does not know {', '.join(f'`{name}`' for name in unknown[:3])}"
            + (f", which PEFT {made_by} wrote" if made_by else ""),
        )


def _says_something(value: Any) -> bool:
    return bool(value) and (value is True or not isinstance(value, int | float))


def _unfit(folder: Path, reason: str) -> InvalidDataError:
    return InvalidDataError(
        f"the adapter in `{folder}` can't be merged into its base", details=[reason], hint=MERGE_ELSEWHERE
    )


def give_vocabulary(base: PreTrainedModel, folder: Path) -> int | None:
    """Resize the base's embeddings to those that the adapter was trained with; returns how many rows are the base's own.

    None where nothing is to be resized. Rows that are added are of no meaning until the adapter's weights are loaded, so
    InvalidDataError is raised where the folder does not hold them.
    """
    layers = _embedding_layers(base)
    sizes = {name: int(layer.weight.shape[0]) for name, layer in layers.items()}
    stored = _stored_shapes(folder)
    wanted = {rows for key, shape in stored.items() if (rows := _rows(key, shape, layers)) is not None}
    before = next(iter(sizes.values()))
    if not wanted or wanted == {before} or set(sizes.values()) != {before}:
        return None
    (after, *others) = sorted(wanted)
    lacking = [name for name in layers if f"{name}.weight" not in {of_base(key) for key in stored}]
    if others or (after > before and lacking):
        raise InvalidDataError(
            f"the adapter in `{folder}` was trained with {sorted(wanted)[-1]} tokens, and its base knows {before}",
            details=[f"the folder does not hold the rows of `{name}` that were added" for name in lacking],
            hint=MERGE_ELSEWHERE,
        )
    with quiet_libraries(), seeded_library_state(0):
        base.resize_token_embeddings(after, mean_resizing=False)
    pad_token_id = getattr(base.config, "pad_token_id", None)
    if isinstance(pad_token_id, int) and pad_token_id >= after:
        base.config.pad_token_id = None  # the library loads no model with another
    return min(before, after)


def _embedding_layers(base: PreTrainedModel) -> dict[str, Any]:
    """The input and output embeddings by their names, one of them where they are tied."""
    layers: list[Any] = [base.get_input_embeddings(), base.get_output_embeddings()]
    is_tied = layers[1] is None or layers[0].weight is layers[1].weight
    wanted = layers[:1] if is_tied else layers
    return {name: module for name, module in base.named_modules() if any(module is layer for layer in wanted)}


def _rows(key: str, shape: tuple[int, ...], layers: Mapping[str, Any]) -> int | None:
    """How many tokens a stored tensor of an embedding is for; None for all others."""
    layer, _, what = of_base(key).rpartition(".")
    if what == "weight" and layer in layers:
        return shape[0]
    for part, axis in ((".lora_embedding_A", 1), (".lora_B", 0)):
        if part in key and of_base(key.partition(part)[0]) in layers and (axis == 1 or _is_linear(layers, key, part)):
            return shape[axis]
    return None


def _is_linear(layers: Mapping[str, Any], key: str, part: str) -> bool:
    return isinstance(layers[of_base(key.partition(part)[0])], torch.nn.Linear)


def of_base(key: str) -> str:
    """The name that a stored tensor has in the base, if it is one of the base's own."""
    return ".".join(part for part in key.removeprefix(PREFIX).split(".") if part not in WRAPPERS)


def _stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    if not (folder / WEIGHTS_FILE).is_file():
        return {}  # attaching says so
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InvalidDataError(
            f"the adapter in `{folder}` has no readable weights",
            details=[f"{WEIGHTS_FILE}: {error}"],
            hint="copy or download it again",
        ) from error
