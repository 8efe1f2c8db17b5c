"""Load base models and tokenizers: format and device explicit, weights frozen, no code and no pickles executed."""

import functools
import os
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.garbage import look_as_usual
from activedpo_cli.models.loading_errors import refusing_what_is_broken
from activedpo_cli.models.placement import BALANCED, move, refuse_offloaded
from activedpo_cli.models.quantization import Quantization, keep_exact, loading_arguments, settle_quantized
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.random_state import seeded_library_state
from activedpo_cli.models.resolve import is_adapter_folder
from activedpo_cli.models.vocabulary import remember_embeddings

SIZES = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size", "max_position_embeddings")
"""What a configuration says in numbers above zero, where it says it."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str, *, may_spread: bool = False) -> torch.device:
    """The device meant by `auto` (CUDA where there is one, else the CPU), or by a device's own name.

    `auto:3` is meant for the fourth process on a machine, and shares out its GPUs. Of `balanced`, which is all GPUs for one
    model and taken only by what `may_spread` one, it is the first, on which a pass begins.

    Raises UsageError when torch does not know the name, or the machine does not have the device.
    """
    if name == BALANCED:
        if not may_spread:
            raise UsageError("`--device balanced` is for stages of a run", hint="use auto, cpu, cuda or cuda:N")
        if not torch.cuda.is_available():
            raise UsageError(
                "`--device balanced` shares a model out over GPUs, and torch sees none",
                hint="use `--device auto`, or install a torch with CUDA",
            )
        return torch.device("cuda", 0)
    kind, _, local = name.partition(":")
    if kind == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    if kind == "auto":
        return torch.device("cuda", int(local) % torch.cuda.device_count()) if local else torch.device("cuda")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"`{name}` is not a device", hint="use auto, cpu, cuda, cuda:N or balanced") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device `{name}` was asked for, and torch sees {torch.cuda.device_count()} CUDA devices",
            hint="use `--device cpu`, or install a torch with CUDA",
        )
    return device


def load_tokenizer(path_or_id: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer as it was saved; one without a pad token pads with EOS, UNK or BOS, and gets no new token."""
    with refusing_what_is_broken("tokenizer of", path_or_id), quiet_libraries():
        tokenizer = AutoTokenizer.from_pretrained(path_or_id, revision=revision, trust_remote_code=False)
        tokenizer("a", verbose=False)  # patterns are compiled on use
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
    if not is_adapter_folder(path_or_id):
        count = getattr(configuration_at(path_or_id, revision).get_text_config(), "vocab_size", None)
        if isinstance(count, int):
            remember_embeddings(tokenizer, count)
    return tokenizer


def load_base_model(
    path_or_id: str,
    *,
    revision: str | None = None,
    dtype: Literal["auto", "float32", "bfloat16"],
    device: torch.device,
    attn_implementation: str,
    quantization: Quantization = "none",
    is_spread: bool = False,
) -> PreTrainedModel:
    """A causal language model in evaluation mode with every parameter frozen.

    With `is_spread` its layers are shared out over all GPUs of the machine, and it begins on the first of these.
    `dtype` auto keeps the checkpoint's number format; with a `quantization` it is that of what is not quantised. Raises
    InvalidDataError when the weights are absent, not safetensors, incomplete (libraries fill the gaps at random), of other
    shapes, or not finite, and for an adapter; raises what `loading_arguments` raises.
    """
    if is_adapter_folder(path_or_id):
        raise InvalidDataError(
            f"`{path_or_id}` is an adapter, and a whole model is needed here",
            hint="merge it into its base (`merge_and_unload()`, then `save_pretrained(FOLDER)`) and name that instead",
        )
    _refuse_flash_in_float32(attn_implementation, DTYPES.get(dtype), path_or_id)
    placed = loading_arguments(quantization, configuration_at(path_or_id, revision), path_or_id, device)
    if is_spread:
        placed |= {"device_map": BALANCED}
    # Filling missing weights draws from the global random state.
    with refusing_what_is_broken("model", path_or_id), quiet_libraries(), seeded_library_state(0):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path_or_id,
            revision=revision,
            dtype=DTYPES.get(dtype, "auto"),
            attn_implementation=attn_implementation,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **placed,
        )
    look_as_usual()  # from here on tensors that are in cycles have to go soon
    model, report = loaded
    for config in (model.config, model.config.get_text_config()):
        if getattr(config, "output_router_logits", False):  # with it transformers fails to sample a padded batch
            config.output_router_logits = False
    _refuse_flash_in_float32(attn_implementation, model.dtype, path_or_id)
    require_complete(path_or_id, report)
    _require_token_ids(path_or_id, model)
    refuse_offloaded(model, path_or_id)
    if quantization != "none":
        settle_quantized(model, path_or_id)
    elif not is_spread:
        move(model, device)
    model.eval().requires_grad_(False)
    keep_exact(model)
    require_finite(model, path_or_id)
    return model


def require_finite(model: torch.nn.Module, name: str) -> None:
    """Raise InvalidDataError naming the first parameter that holds a NaN or an infinity."""
    for parameter_name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InvalidDataError(
                f"`{parameter_name}` of `{name}` holds values that are not finite",
                hint="the checkpoint is broken, or overflowed in its number format; take another one",
            )


def context_length(model: PreTrainedModel | PeftModel | PretrainedConfig) -> int | None:
    """How many tokens prompt and response may have together; None where the model states no limit."""
    config = model if isinstance(model, PretrainedConfig) else model.config
    text = config.get_text_config()
    return None if _is_without_limit(text) else getattr(text, "max_position_embeddings", None)


def context_length_at(path_or_id: str, revision: str | None = None) -> int | None:
    """`context_length` of a model that is not loaded, from its configuration alone."""
    return context_length(configuration_at(path_or_id, revision))


def generation_config_at(path_or_id: str, revision: str | None = None) -> GenerationConfig:
    """How a model that is not loaded would sample by itself: by its own file, else by its configuration."""
    try:
        return GenerationConfig.from_pretrained(path_or_id, revision=revision or "main")
    except (OSError, ValueError, TypeError):
        return GenerationConfig.from_model_config(configuration_at(path_or_id, revision))


def hidden_size_at(path_or_id: str, revision: str | None = None) -> int:
    """The width of the hidden states of a model that is not loaded."""
    return int(configuration_at(path_or_id, revision).get_text_config().hidden_size)


def configuration_at(path_or_id: str, revision: str | None = None) -> PretrainedConfig:
    """What config.json says of a model that is not loaded, for reading only; kept in memory while the file is the same.

    Raises InvalidDataError where it is no configuration.
    """
    try:
        facts = os.stat(Path(path_or_id) / "config.json")
    except OSError:
        return _checked_configuration(path_or_id, revision)
    return _remembered_configuration(path_or_id, revision, (facts.st_ino, facts.st_size, facts.st_mtime_ns))


@functools.lru_cache(maxsize=8)
def _remembered_configuration(path: str, revision: str | None, _file: tuple[int, ...]) -> PretrainedConfig:
    return _checked_configuration(path, revision)


def _checked_configuration(path_or_id: str, revision: str | None) -> PretrainedConfig:
    with refusing_what_is_broken("configuration of", path_or_id), quiet_libraries():
        config = AutoConfig.from_pretrained(path_or_id, revision=revision, trust_remote_code=False)
        text = config.get_text_config()
        sizes = {name: getattr(text, name, None) for name in SIZES}
    if _is_without_limit(text):
        del sizes["max_position_embeddings"]
    for name, size in sizes.items():
        if isinstance(size, int | float) and size < 1:
            raise InvalidDataError(
                f"the configuration of `{path_or_id}` says that `{name}` is {size}",
                hint="its config.json is damaged: copy or download it again",
            )
    return config


def _is_without_limit(config: PretrainedConfig) -> bool:
    """Whether an architecture itself, and not a file, says -1 for its positions, by which XLNet means any number."""
    return isinstance(getattr(type(config), "max_position_embeddings", None), property) and (
        config.max_position_embeddings == -1
    )


def _refuse_flash_in_float32(attn_implementation: str, dtype: torch.dtype | None, name: str) -> None:
    """Raise UsageError where flash attention would get numbers for which it has no kernel, as a pass would tell."""
    if attn_implementation == "flash_attention_2" and dtype == torch.float32:
        raise UsageError(
            f"flash attention computes in half precision, and `{name}` is to be in float32",
            hint="--dtype bfloat16, or --set model.attn_implementation=sdpa",
        )


def require_complete(name: str, report: dict[str, Any]) -> None:
    """Raise InvalidDataError where a checkpoint lacks weights of its model, or has others in their place."""
    mismatched = [key if isinstance(key, str) else key[0] for key in report.get("mismatched_keys", ())]
    for problem, keys in (("lacks", sorted(report["missing_keys"])), ("has another shape of", sorted(mismatched))):
        if keys:
            raise InvalidDataError(
                f"the checkpoint `{name}` {problem} {len(keys)} of the model's weights, first `{keys[0]}`",
                hint="is it complete, and of a causal language model?",
            )


def _require_token_ids(name: str, model: PreTrainedModel) -> None:
    """Raise InvalidDataError where what ends a text, by generation_config.json, is no token."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    several = ends if isinstance(ends, list) else [ends]
    wrong = [end for end in several if end is not None and not isinstance(end, int)]
    if wrong:
        raise InvalidDataError(
            f"generation_config.json of `{name}` says that `eos_token_id` is {excerpt(ends)}",
            hint="write the id of a token there, or several in a list, or remove the file",
        )
