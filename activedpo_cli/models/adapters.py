"""LoRA adapters: made once from a seed, attached, switched off for the reference, saved with reproducible bytes."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.out_of_memory import is_out_of_memory
from activedpo_cli.base.settings import AdapterSettings
from activedpo_cli.models.foreign_adapter import CONFIG_FILE, MERGE_ELSEWHERE, WEIGHTS_FILE, of_base
from activedpo_cli.models.linear_layers import checked_targets
from activedpo_cli.models.loading import require_finite
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.random_state import seeded_library_state

ADAPTER_NAME = "default"
ATTACHING_ERRORS = (
    *(OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError, NotImplementedError),
    *(ArithmeticError, AssertionError, SafetensorError),
)
"""What the libraries raise for settings or weights of an adapter that they can't read, or that fit no layer."""


def create_initial_adapter(
    base_model: PreTrainedModel, settings: AdapterSettings, *, seed: int, destination: Path, base_name: str
) -> None:
    """Write a fresh adapter (A random from `seed`, B = 0, so that the policy is the base) into `destination`.

    The bytes depend on the settings, the seed, and the base's shapes and number format alone (PEFT rounds A to the
    latter). `base_model` is left as it was. Raises UsageError for layers that the model does not have.
    """
    policy = with_fresh_adapter(base_model, settings, seed=seed)
    save_adapter(policy, destination, base_name=base_name)
    policy.unload()
    if hasattr(base_model, "peft_config"):
        del base_model.peft_config


def with_fresh_adapter(
    base_model: PreTrainedModel,
    settings: AdapterSettings,
    *,
    seed: int,
    modules_setting: str = "adapter.target_modules",
) -> PeftModel:
    """The base with a new adapter in float32, trainable, A random from `seed` and B = 0.

    Raises UsageError, naming `modules_setting`, for layers that the model does not have, and naming the setting of the
    dropout where bare weights would be adapted, which LoRA can't drop anything of.
    """
    config = LoraConfig(
        r=settings.r,
        lora_alpha=int(settings.lora_alpha) if settings.lora_alpha.is_integer() else settings.lora_alpha,  # type: ignore[arg-type]
        use_rslora=settings.use_rslora,
        lora_dropout=settings.lora_dropout,
        target_modules=checked_targets(base_model, settings.target_modules, modules_setting),
        bias="none",
        task_type=TaskType.CAUSAL_LM,
    )
    try:
        with quiet_libraries(), seeded_library_state(seed):
            policy = get_peft_model(base_model, config)  # type: ignore[arg-type]
    except ValueError as error:
        raise _not_adapted(settings, modules_setting, error) from error
    assert isinstance(policy, PeftModel)
    return policy


def _not_adapted(settings: AdapterSettings, modules_setting: str, error: ValueError) -> UsageError:
    """Why PEFT did not take the settings, and the way out."""
    said = str(error).splitlines()[:1]
    if "lora_dropout" in str(error):
        dropout = f"{modules_setting.rpartition('.')[0]}.lora_dropout"
        return UsageError(
            f"{dropout} is {settings.lora_dropout}, and {modules_setting} takes in bare weights, such as a mixture's "
            "experts, of which LoRA can't drop anything",
            details=said,
            hint=f"--set {dropout}=0, or linear layers alone: --set {modules_setting}=NAME,NAME",
        )
    return UsageError(f"{modules_setting}: these layers can't be adapted", details=said, hint="name other layers")


def attach_adapter(
    base_model: PreTrainedModel, adapter_folder: Path, *, trainable: bool, rows_of_base: int | None = None
) -> PeftModel:
    """The policy: the base with the saved adapter in float32, trainable only if asked, in evaluation mode.

    Weights of the base that are stored with the adapter have to be the base's; of embeddings that were resized, the first
    `rows_of_base`. Raises InvalidDataError when the adapter does not fit the base or is not finite; libraries only warn of a
    missing weight and leave its random start in place. Pickled weights, which could run any code, are never read.
    """
    if not (adapter_folder / WEIGHTS_FILE).is_file():
        raise InvalidDataError(
            f"the adapter in `{adapter_folder}` has no {WEIGHTS_FILE}",
            details=["pickled weights (*.bin) can run any code when loaded, so they are never read"],
            hint="load it where you trust it and write it with `save_pretrained(folder)`",
        )
    try:
        stored = _stored_tensors(base_model, adapter_folder, rows_of_base)
        with quiet_libraries(), seeded_library_state(0):
            policy = PeftModel.from_pretrained(
                base_model,
                str(adapter_folder),
                adapter_name=ADAPTER_NAME,
                is_trainable=trainable,
                torch_device=str(base_model.device),
            )
    except ATTACHING_ERRORS as error:
        if is_out_of_memory(error):
            raise
        raise InvalidDataError(
            f"the adapter in `{adapter_folder}` cannot be attached to this model",
            details=[line for line in str(error).splitlines() if line.strip()][:3],
            hint="was it made for another base model, or for another revision of it?",
        ) from error
    _require_all_fit(policy, adapter_folder, stored)
    require_finite(policy, str(adapter_folder))
    return policy.eval()


@dataclass(frozen=True)
class _Stored:
    """A tensor that is stored with an adapter, and the base's of the same name before the adapter was attached."""

    values: torch.Tensor
    base: torch.Tensor | None


def _stored_tensors(base_model: PreTrainedModel, folder: Path, rows: int | None) -> dict[str, _Stored]:
    """What is stored by its name, with the first `rows`, or all, of tensors that the base has, too."""
    weights = base_model.state_dict()
    stored = {}
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            weight = weights.get(of_base(key))
            stored[key] = _Stored(file.get_tensor(key), None if weight is None else weight[:rows].clone())
    return stored


def _require_all_fit(policy: PeftModel, folder: Path, stored: Mapping[str, _Stored]) -> None:
    """Raise InvalidDataError unless what is stored is the whole adapter, beside it at most what the base has, too.

    PEFT stores some weights of embeddings twice, which is harmless where both are the same.
    """
    expected = set(_adapter_state(policy))
    weights = policy.state_dict()
    beside = {name: tensor for name, tensor in stored.items() if name not in expected}
    of_the_base = {name: tensor for name, tensor in beside.items() if name in weights and tensor.base is not None}
    loaded = {name.replace(f".{ADAPTER_NAME}", ""): value for name, value in weights.items()}
    differing = sorted(expected - set(stored)) + sorted(
        name
        for name, tensor in beside.items()
        if name not in of_the_base and not (name in loaded and _are_same(tensor.values, loaded[name].cpu()))
    )
    if differing:
        raise InvalidDataError(
            f"the adapter in `{folder}` does not fit this model",
            details=[f"differs in: {name}" for name in differing[:3]],
            hint="was it made for another base model, or for another revision of it?",
        )
    for name, tensor in of_the_base.items():
        assert tensor.base is not None
        if not _are_same(tensor.values[: len(tensor.base)], tensor.base.cpu()):
            raise InvalidDataError(
                f"the adapter in `{folder}` holds another `{of_base(name)}` than its base",
                details=["it was made for another base or revision, or the layer was trained beside the adapter"],
                hint=MERGE_ELSEWHERE,
            )
        weights[name][: len(tensor.base)].copy_(tensor.base)  # where the formats differ, the base's own values stay


def _are_same(values: torch.Tensor, base: torch.Tensor) -> bool:
    """Whether two tensors are equal in the number format of either."""
    return values.shape == base.shape and (
        torch.equal(values.to(base.dtype), base) or torch.equal(base.to(values.dtype), values)
    )


def save_adapter(
    policy: PeftModel, destination: Path, *, base_name: str, tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Write the adapter in PEFT's format, and the tokenizer with its chat template beside it.

    Equal weights give equal bytes; there are no pickles and no model card. `destination` is made if need be.
    """
    with quiet_libraries(), _without_model_card(policy):
        # "auto" would ask the hub for the base's configuration.
        policy.save_pretrained(str(destination), selected_adapters=[ADAPTER_NAME], save_embedding_layers=False)
        if tokenizer is not None:
            tokenizer.save_pretrained(str(destination))
    config_path = destination / CONFIG_FILE
    config = json.loads(config_path.read_text(encoding="utf-8"))
    config = _sorted_names(config | {"base_model_name_or_path": base_name})
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _without_model_card(policy: PeftModel) -> Iterator[None]:
    """PEFT would fill in a template, which takes most of the time of saving a small adapter."""
    vars(policy)["create_or_update_model_card"] = lambda directory: None
    try:
        yield
    finally:
        del vars(policy)["create_or_update_model_card"]


@contextmanager
def reference_mode(policy: PeftModel) -> Iterator[PeftModel]:
    """π_ref: the same model with its adapters off; which parameters need gradients is restored exactly on leaving."""
    needed = {name: parameter.requires_grad for name, parameter in policy.named_parameters()}
    try:
        with policy.disable_adapter():
            yield policy
    finally:
        # PEFT unfreezes the active adapter here, even one that was frozen.
        for name, parameter in policy.named_parameters():
            parameter.requires_grad_(needed[name])


def _adapter_state(policy: PeftModel) -> dict[str, torch.Tensor]:
    with quiet_libraries():
        return get_peft_model_state_dict(policy, adapter_name=ADAPTER_NAME, save_embedding_layers=False)


def _sorted_names(value: Any) -> Any:
    """Lists of names in order: PEFT writes sets in the order of string hashes, which differs between processes."""
    if isinstance(value, dict):
        return {key: _sorted_names(item) for key, item in value.items()}
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return sorted(value)
    return value
