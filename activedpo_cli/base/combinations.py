"""Settings that have no effect beside others: refused where they would change what is learnt, and else told of."""

from collections.abc import Callable, Iterable
from typing import Any

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.settings import FROM_OVERLAP, SECTIONS, Config

SCHEDULES = (
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"),
    *("reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "greedy"),
)
"""The learning-rate schedules of transformers; whether one can do without settings of its own is found out in training."""
REWARD_MODEL = "reward-model"
SMOOTHED_LOSSES = ("robust", "cdpo")
"""The losses that read `train.label_smoothing`."""
READ_BESIDE_OTHERS = ("train.label_smoothing", "train.loss_type", "train.lr_scheduler_type", "train.warmup_steps")
"""The settings of *train* by which `ineffective` goes."""


def refuse_ineffective(config: Config, *sections: str) -> None:
    """Raise UsageError for settings of `train` or `sft` that the loss or the schedule does not read, or does not know."""
    problems = ineffective(config, *sections)
    if problems:
        raise UsageError("settings of training would have no effect", details=problems)


def ineffective(config: Config, *sections: str) -> list[str]:
    """A line for each setting of `train` or `sft` that the loss or the schedule does not read, or does not know."""
    problems = []
    for name in sections:
        section: Any = getattr(config, name)
        schedule = section.lr_scheduler_type
        if schedule not in SCHEDULES:
            meant = did_you_mean(schedule, SCHEDULES)
            problems.append(f"{name}.lr_scheduler_type  `{schedule}` is no schedule of transformers{meant}")
        if schedule == "constant" and section.warmup_steps:
            problems.append(
                f"{name}.warmup_steps  {section.warmup_steps}: {name}.lr_scheduler_type constant has no warm-up; "
                "constant_with_warmup has"
            )
    if "train" in sections and config.train.label_smoothing and config.train.loss_type not in SMOOTHED_LOSSES:
        problems.append(
            f"train.label_smoothing  {config.train.label_smoothing}: train.loss_type {config.train.loss_type} does not "
            "read it; robust and cdpo do"
        )
    return problems


def refuse_unestimated(config: Config) -> None:
    """Raise UsageError where the share of wrong labels is to be estimated, and no pair will be answered twice."""
    if config.train.label_smoothing == FROM_OVERLAP and not config.label.overlap:
        raise UsageError(
            "train.label_smoothing overlap estimates the share of wrong answers from pairs that are answered twice, and "
            "label.overlap is 0",
            hint="have pairs answered twice with `--set label.overlap=30`, or say what to assume: `--label-smoothing 0.1`",
        )


def unused(config: Config, keys: Iterable[str]) -> list[str]:
    """Sentences about those of some settings that differ from their defaults and are not read, beside the rest."""
    found = []
    for key in keys:
        section, _, leaf = key.partition(".")
        if key in REASONS and getattr(getattr(config, section), leaf) != SECTIONS[section].model_fields[leaf].default:
            reason = REASONS[key](config)
            if reason:
                found.append(f"`{key}` is not used: {reason}")
    return found


def _without_draws(config: Config) -> str | None:
    return None if config.label.answer == "bradley-terry" else f"`label.answer` is {config.label.answer}"


def _without_records(config: Config) -> str | None:
    return None if config.label.oracle == "recorded" else f"`label.oracle` is {config.label.oracle}"


def _without_reward_model(config: Config) -> str | None:
    asked = (config.label.oracle, config.evaluate.scorer, config.evaluate.second_scorer)
    return None if any((name or "").startswith(REWARD_MODEL) for name in asked) else "no reward model is asked"


def _without_own_adapter(config: Config) -> str | None:
    return "`sft.lora_r` is null, so all weights are trained" if config.sft.lora_r is None else None


def _without_file(config: Config) -> str | None:
    return "`generate.responses` names no file" if config.generate.responses is None else None


def _without_sampling(config: Config) -> str | None:
    return None if config.generate.responses is None else f"responses come from `{config.generate.responses}`"


def _without_server(config: Config) -> str | None:
    return None if config.generate.backend == "server" else f"`generate.backend` is {config.generate.backend}"


def _without_vllm(config: Config) -> str | None:
    return None if config.generate.backend == "vllm" else f"`generate.backend` is {config.generate.backend}"


def _without_either(config: Config) -> str | None:
    return _without_server(config) and _without_vllm(config)


def _without_widths(config: Config) -> str | None:
    kind = config.featurize.projection
    return None if kind == "factored" else f"`featurize.projection` is {kind}"


REASONS: dict[str, Callable[[Config], str | None]] = {
    "label.temperature": _without_draws,
    "label.score_field": _without_records,
    "label.input_format": _without_reward_model,
    "label.max_length": _without_reward_model,
    **dict.fromkeys(("sft.lora_alpha", "sft.lora_dropout", "sft.lora_modules"), _without_own_adapter),
    **dict.fromkeys(("generate.recorded_eos", "generate.recorded_pairs"), _without_file),
    **dict.fromkeys(("generate.temperature", "generate.top_k", "generate.top_p"), _without_sampling),
    **dict.fromkeys(
        ("generate.server_url", "generate.server_model", "generate.server_api_key_env"),
        _without_server,
    ),
    "generate.server_timeout": _without_either,
    **dict.fromkeys(("generate.vllm_python", "generate.vllm_args", "generate.vllm_start_timeout"), _without_vllm),
    "featurize.projection_width": _without_widths,
}
"""Settings that are read only beside certain others, and why one is not; None where it is."""
