"""Merge a LoRA SFT model into full weights, so that "adapters off" is π_SFT."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError
from activedpo_cli.models.adapters import CONFIG_FILE, attach_adapter
from activedpo_cli.models.loading import load_base_model, load_tokenizer
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.resolve import resolve_model

CPU = torch.device("cpu")


def merge_adapter_model(folder: Path, destination: Path) -> None:
    """Write the base with the adapter of `folder` merged in, as safetensors, and the tokenizer, into `destination`.

    The tokenizer is the adapter's own where it has one. The base is found by the name in adapter_config.json.
    """
    base_name = _base_name(folder)
    if not base_name:
        raise InvalidDataError(f"the adapter in `{folder}` does not name its base model")
    try:
        base = resolve_model(base_name)
    except ActiveDPOError as error:
        said = f"the base model that `{folder / CONFIG_FILE}` names: {error.message}"
        raise type(error)(said, details=error.details, hint=error.hint) from error
    model = load_base_model(base.source, revision=base.revision, dtype="auto", device=CPU, attn_implementation="sdpa")
    policy = attach_adapter(model, folder, trainable=False)
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(str(folder)) if has_tokenizer else load_tokenizer(base.source, base.revision)
    write_full_weights(policy, tokenizer, destination)


def _base_name(folder: Path) -> str | None:
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
        name = config.get("base_model_name_or_path")
        return None if name is None else str(name)
    except (ValueError, AttributeError, RecursionError) as error:
        raise InvalidDataError(f"`{folder / CONFIG_FILE}` is not the settings of an adapter") from error


def write_full_weights(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, destination: Path
) -> None:
    """Write a model, its adapter merged in where it has one, as safetensors, and the tokenizer, into `destination`.

    The model is not to be used afterwards. It is written in its own number format.
    """
    if isinstance(model, PeftModel):
        base: Any = model.get_base_model()
        _untie_adapted_head(model, base)
        with quiet_libraries():
            model = model.merge_and_unload(safe_merge=True)  # type: ignore[operator]
    assert isinstance(model, PreTrainedModel)
    _mend_generation_settings(model)
    with quiet_libraries():
        model.save_pretrained(destination)
    tokenizer.save_pretrained(destination)


def _mend_generation_settings(model: PreTrainedModel) -> None:
    """Switch sampling on where settings name its parameters while it is off, which the library loads and refuses to save."""
    settings = model.generation_config
    if settings is None:
        return
    try:
        with quiet_libraries():
            settings.validate(strict=True)
    except ValueError:
        settings.do_sample = True


def _untie_adapted_head(policy: PeftModel, model: PreTrainedModel) -> None:
    """Give the output layer weights of its own where only one of two tied layers is adapted.

    Merging into a shared tensor would change the other layer too, which the adapter never did.
    """
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    weights = [layer.get_base_layer().weight if hasattr(layer, "get_base_layer") else layer.weight for layer in layers]
    if weights[0].data_ptr() != weights[1].data_ptr() or not any(hasattr(layer, "get_base_layer") for layer in layers):
        return
    head = layers[1].get_base_layer() if hasattr(layers[1], "get_base_layer") else layers[1]
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False
