"""Merge a LoRA SFT model into full weights, so that "adapters off" is π_SFT."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError
from activedpo_cli.base.out_of_memory import is_out_of_memory
from activedpo_cli.models.adapters import attach_adapter
from activedpo_cli.models.foreign_adapter import CONFIG_FILE, MERGE_ELSEWHERE, give_vocabulary, read_adapter
from activedpo_cli.models.loading import load_base_model, load_tokenizer
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.resolve import resolve_model

CPU = torch.device("cpu")
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model")


def merge_adapter_model(folder: Path, destination: Path) -> None:
    """Write the base with the adapter of `folder` merged in, as safetensors, and the tokenizer, into `destination`.

    The base is the model, at the commit, that adapter_config.json names; its vocabulary is resized to the one that the
    adapter was trained with. The tokenizer is the adapter's own where it has one. Raises InvalidDataError for an adapter
    that can't become weights of its base.
    """
    adapter = read_adapter(folder)
    try:
        base = resolve_model(adapter.base_name, adapter.revision)
    except ActiveDPOError as error:
        said = f"the base model that `{folder / CONFIG_FILE}` names: {error.message}"
        raise type(error)(said, details=error.details, hint=error.hint) from error
    model = load_base_model(base.source, revision=base.revision, dtype="auto", device=CPU, attn_implementation="eager")
    rows_of_base = give_vocabulary(model, folder)
    policy = attach_adapter(model, folder, trainable=False, rows_of_base=rows_of_base)
    has_tokenizer = any((folder / name).is_file() for name in TOKENIZER_FILES)
    tokenizer = load_tokenizer(str(folder)) if has_tokenizer else load_tokenizer(base.source, base.revision)
    try:
        write_full_weights(policy, tokenizer, destination)
    except (NotImplementedError, AttributeError, RuntimeError, ValueError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise InvalidDataError(
            f"the adapter in `{folder}` can't be merged into its base",
            details=[line for line in str(error).splitlines() if line.strip()][:3],
            hint=MERGE_ELSEWHERE,
        ) from error


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


def merge_in_float32(policy: PeftModel) -> None:
    """Add each layer's update to its weights in float32 and round the sum once, to the weights' own number format.

    PEFT alone rounds the update first, and then the sum. One adapted module is held in float32 at a time. The policy
    computes as before, and `write_full_weights` has nothing left to merge.

    Raises what PEFT raises for layers that can't be merged, or whose weights would not be finite.
    """
    model: Any = policy.get_base_model()
    _untie_adapted_head(policy, model)
    for base, wrappers in _adapted_modules(policy):
        formats = {name: weight.dtype for name, weight in base.named_parameters(recurse=False)}
        for weight in base.parameters(recurse=False):
            weight.data = weight.data.float()
        for wrapper in wrappers:
            with quiet_libraries():
                wrapper.merge(safe_merge=True)  # type: ignore[operator]
        for name, weight in base.named_parameters(recurse=False):
            weight.data = weight.data.to(formats[name])


def _adapted_modules(policy: PeftModel) -> Iterator[tuple[torch.nn.Module, list[BaseTunerLayer]]]:
    """Each adapted module of the base, with what PEFT put around it, which is several where its bare weights are adapted."""
    found: dict[int, tuple[torch.nn.Module, list[BaseTunerLayer]]] = {}
    for layer in policy.modules():
        if isinstance(layer, BaseTunerLayer):
            base = layer.get_base_layer()
            found.setdefault(id(base), (base, []))[1].append(layer)
    yield from found.values()


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
    """Give the output layer weights of its own where two tied layers are adapted, and not both alike.

    Merging into a shared tensor would change the other layer too, which the adapter never did.
    """
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    wrapped = [_wrapped(layer) for layer in layers]
    if wrapped[0].weight.data_ptr() != wrapped[1].weight.data_ptr():
        return
    # The weight of a layer with trained tokens is its merged one, that of a layer with LoRA its base's.
    if not any(hasattr(layer, "get_base_layer") for layer in layers) and torch.equal(
        layers[0].weight, layers[1].weight
    ):
        return
    wrapped[1].weight = torch.nn.Parameter(wrapped[1].weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False


def _wrapped(layer: Any) -> Any:
    """The layer of the base inside what PEFT put around it."""
    inner = getattr(layer, "token_adapter", layer)
    return inner.get_base_layer() if hasattr(inner, "get_base_layer") else inner
