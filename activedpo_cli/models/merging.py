"""Merge a LoRA SFT model into full weights, so that "adapters off" is π_SFT."""

import json
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from activedpo_cli.errors import InvalidDataError
from activedpo_cli.models.adapters import CONFIG_FILE, attach_adapter
from activedpo_cli.models.loading import load_base_model, load_tokenizer
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.resolve import resolve_model

CPU = torch.device("cpu")


def merge_adapter_model(folder: Path, destination: Path) -> None:
    """Write the base with the adapter of `folder` merged in, as safetensors, and the tokenizer, into `destination`.

    The tokenizer is the adapter's own where it has one. The base is found by the name in adapter_config.json.
    """
    base_name = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base_name:
        raise InvalidDataError(f"the adapter in `{folder}` does not name its base model")
    base = resolve_model(base_name)
    model = load_base_model(base.source, revision=base.revision, dtype="auto", device=CPU, attn_implementation="sdpa")
    policy = attach_adapter(model, folder, trainable=False)
    _untie_adapted_head(policy, model)
    with quiet_libraries():
        policy.merge_and_unload(safe_merge=True).save_pretrained(destination)
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(str(folder)) if has_tokenizer else load_tokenizer(base.source, base.revision)
    tokenizer.save_pretrained(destination)


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
