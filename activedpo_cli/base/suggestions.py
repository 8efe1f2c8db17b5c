"""What somebody may have meant who typed the name of a setting that does not exist."""

import difflib
from collections.abc import Iterable
from typing import Any

from activedpo_cli.base.settings import SECTIONS, Config, section_of

MOST = 3
"""Settings named at once."""
SURE = 0.75
"""Likeness from which a misspelling is taken for one: letters in common as difflib counts them."""
EPOCHS = ("train.num_train_epochs", "sft.num_train_epochs")
BATCH_SIZE = ("train.per_device_train_batch_size", "sft.per_device_train_batch_size")
RANK = ("adapter.r",)
ALPHA = ("adapter.lora_alpha",)
LAYERS = ("adapter.target_modules",)
RESPONSES = ("generate.num_responses",)
LENGTH = ("generate.max_new_tokens",)
ORACLE = ("label.oracle",)
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs", "train_epochs"), EPOCHS),
    **dict.fromkeys(("batch_size", "train_batch_size", "per_device_batch_size", "micro_batch_size"), BATCH_SIZE),
    **dict.fromkeys(("lr", "learning_rate"), ("train.learning_rate", "sft.learning_rate")),
    **dict.fromkeys(("grad_accum", "grad_accum_steps", "accumulation_steps"), ("train.gradient_accumulation_steps",)),
    **dict.fromkeys(("rank", "lora_r", "lora_rank"), RANK),
    **dict.fromkeys(("alpha", "lora_alpha"), ALPHA),
    **dict.fromkeys(("dropout", "lora_dropout"), ("adapter.lora_dropout",)),
    **dict.fromkeys(("rslora", "rs_lora", "use_rslora"), ("adapter.use_rslora",)),
    **dict.fromkeys(("lora_modules", "lora_target_modules", "target_modules", "modules"), LAYERS),
    **dict.fromkeys(("loss", "loss_type"), ("train.loss_type",)),
    "label_smoothing_factor": ("train.label_smoothing",),
    **dict.fromkeys(("scheduler", "lr_scheduler"), ("train.lr_scheduler_type", "sft.lr_scheduler_type")),
    **dict.fromkeys(("warmup", "warmup_ratio"), ("train.warmup_steps", "sft.warmup_steps")),
    **dict.fromkeys(("grad_clip", "clip_grad", "gradient_clipping", "max_norm"), ("train.max_grad_norm",)),
    **dict.fromkeys(("num_return_sequences", "num_samples", "num_generations", "num_completions"), RESPONSES),
    **dict.fromkeys(("max_tokens", "max_length", "max_completion_length", "response_length"), LENGTH),
    **dict.fromkeys(("model_name", "model_name_or_path", "base_model", "model_path", "path"), ("model.name",)),
    **dict.fromkeys(("torch_dtype", "bf16", "fp16"), ("model.dtype",)),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit", "quantize", "qlora"), ("model.quantization",)),
    **dict.fromkeys(("dataset", "dataset_name", "data", "prompts_file"), ("prompts.source",)),
    **dict.fromkeys(("strategy", "acquisition", "acquisition_function", "query_strategy"), ("select.method",)),
    **dict.fromkeys(("num_labels", "n_labels", "num_pairs", "labels_per_iteration"), ("select.budget",)),
    **dict.fromkeys(("judge", "reward_model", "annotator"), ORACLE),
    **dict.fromkeys(("lambda", "lambda_", "regularization"), ("select.methods.activedpo.ridge",)),
    **dict.fromkeys(("projection_dim", "proj_dimension", "sketch_dim"), ("featurize.proj_dim",)),
    **dict.fromkeys(("base_url", "api_base", "api_url", "endpoint"), ("label.judge.base_url", "generate.server_url")),
    **dict.fromkeys(("api_key", "api_key_env"), ("label.judge.api_key_env", "generate.server_api_key_env")),
    "random_seed": ("seed",),
}
"""What other libraries, TRL and PEFT among them, call a setting, without its section."""
ABSENT = dict.fromkeys(
    ("max_prompt_length", "truncation_mode", "truncation"),
    "no such setting: nothing is cut off, and what exceeds the model's context is left out or refused",
)
"""Settings of other libraries that have no counterpart, and why."""


def unknown_setting(key: str) -> str:
    """What to say of a dotted key that names no setting."""
    leaf = key.rpartition(".")[2].replace("-", "_")
    if leaf in ABSENT:
        return ABSENT[leaf]
    meant = meant_settings(key)
    return "unknown setting" + (f" — did you mean {' or '.join(f'`{name}`' for name in meant)}?" if meant else "")


def meant_settings(key: str) -> list[str]:
    """The settings that a dotted key which names none may stand for, the likeliest first; mostly one, at most `MOST`."""
    section, _, name = key.replace("-", "_").rpartition(".")
    if not section and (top := difflib.get_close_matches(name, Config.model_fields, n=1, cutoff=SURE)):
        return top
    outer, _, inner = section.partition(".")
    group = section_of(SECTIONS[outer], inner) if outer in SECTIONS else None
    if group is not None:
        return [f"{section}.{leaf}" for leaf in difflib.get_close_matches(name, group.model_fields, n=1)]
    begun = [full for full in SECTIONS if section and full.startswith(section)]
    inside = begun or difflib.get_close_matches(section, SECTIONS, n=1)
    attempts = (
        _called(name, inside),
        _near(name, inside, SURE),
        _called(name),
        _near(name, inside),
        _near(name, SECTIONS, SURE),
    )
    return sorted(next(filter(None, attempts), []), key=lambda meant: meant.startswith("sft."))[:MOST]


def called_settings(name: str) -> list[str]:
    """The settings that have this name without their section, or whose flag has it, or that others call so."""
    return sorted(_called(name), key=lambda key: key.startswith("sft."))[:MOST]


def _called(name: str, sections: Iterable[str] = SECTIONS) -> list[str]:
    """Settings of some sections that have this name, or a flag of this name, or that others call so."""
    found = [key for key in OTHER_NAMES.get(name, ()) if key == "seed" or key.partition(".")[0] in sections]
    for section in sections:
        for leaf, field in SECTIONS[section].model_fields.items():
            extra: Any = field.json_schema_extra or {}
            flags = [flag.removeprefix("--").replace("-", "_") for flag in extra.get("flags", ())]
            if name in (leaf, *flags):
                found.append(f"{section}.{leaf}")
    return list(dict.fromkeys(found))


def _near(name: str, sections: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Settings of some sections that are spelled nearly so."""
    leaves = sorted({leaf for section in sections for leaf in SECTIONS[section].model_fields})
    close = difflib.get_close_matches(name, leaves, n=1, cutoff=cutoff)
    return [f"{section}.{leaf}" for leaf in close for section in sections if leaf in SECTIONS[section].model_fields]
