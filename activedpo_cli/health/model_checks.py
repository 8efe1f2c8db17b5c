"""`doctor --model`: what *generate* asks of a model, and whether a first step of training begins at the reference.

Each check is `ok`, a `warning` where a run should know something, `refused`, or `not asked` where one before it was refused.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.config import prompt_rendering
from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.base.settings import FROM_OVERLAP, Config
from activedpo_cli.engine.step import Execution
from activedpo_cli.health.doctor import Check
from activedpo_cli.policy.early_check import CHECKS, USUAL_PROMPT, Subject, adapter_checks, checking
from activedpo_cli.policy.policy import BaseWeights, load_base

if TYPE_CHECKING:
    from activedpo_cli.models.template_checks import Finding

SMALLER_WEIGHTS = (
    "a smaller model, `--set model.quantization=4bit`, `--set model.dtype=bfloat16`, or a machine with more memory"
)
SMALLER_BATCHES = {
    "generate": "what does not fit is sampled in halves; --set generate.unit_size=16 makes that unnecessary",
    "featurize": "--set featurize.tokens_per_batch=1024, or --set featurize.gradient_checkpointing=true",
    "train": "--set train.per_device_train_batch_size=1 with train.gradient_accumulation_steps for the same updates, or "
    "--set train.gradient_checkpointing=true",
    "evaluate": "what does not fit is sampled in halves; --set evaluate.unit_size=16 makes that unnecessary",
}
"""What a stage needs less memory with."""


def examine_model(config: Config, execution: Execution) -> dict[str, Any]:
    """All checks of `model.name` with the settings of its adapter, prompts and training; `usable` where none is refused.

    Raises ActiveDPOError where the model is not found or can't be loaded.
    """
    with _location(config) as where:
        needed, is_too_large = _needed(where, config, execution)
        checks = [*needed, *([] if is_too_large else _looked_at(where, config, execution))]
    return {
        "model": config.model.name,
        "usable": all(check.state in ("ok", "warning") for check in checks),
        "checks": [asdict(check) for check in checks],
    }


def _needed(where: tuple[str, str | None], config: Config, execution: Execution) -> tuple[list[Check], bool]:
    """What each stage will need, before anything is loaded; and whether the weights alone exceed what is free."""
    from activedpo_cli.health.needs import estimate, free_memory
    from activedpo_cli.models.loading import pick_device
    from activedpo_cli.models.placement import BALANCED

    device = pick_device(execution.device, may_spread=True)
    try:
        found = estimate(config, where, device, USUAL_PROMPT)
    except ActiveDPOError as error:
        return [Check("memory and time", "ok", f"can't be told: {error.in_one_line}", "")], False
    free = free_memory(device, everywhere=execution.device == BALANCED)
    if free is not None and found.weights > free:
        says = f"the weights alone take {_gigabytes(found.weights)}, and {_gigabytes(free)} are free on {device}"
        return [Check("memory and time", "refused", says, SMALLER_WEIGHTS)], True
    checks = []
    for need in found.stages:
        says = f"about {_gigabytes(need.bytes)}, {_duration(need.seconds)} for {need.work}"
        is_tight = free is not None and need.bytes > free
        checks.append(
            Check(
                f"memory and time: {need.stage}",
                "warning" if is_tight else "ok",
                says + (f"; {_gigabytes(free)} are free on {device}" if is_tight and free is not None else ""),
                SMALLER_BATCHES[need.stage] if is_tight else "",
            )
        )
    return checks, False


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def _duration(seconds: float) -> str:
    """In one unit, roughly, as it is known."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{max(seconds, 1):.0f} s"


def _looked_at(where: tuple[str, str | None], config: Config, execution: Execution) -> list[Check]:
    """The checks for which the weights are loaded."""
    base = load_base(where, config, execution, quantization=config.model.quantization)
    checks = [Check("the model loads", "ok", _described(base), ""), _format_check(base)]
    checks += _template_checks(base, config)
    asked = CHECKS | adapter_checks() | {"training begins at the reference": _first_step}
    with checking(base, config) as subject:
        for name, ask in asked.items():
            if any(check.state == "refused" for check in checks):
                checks.append(Check(name, "not asked", "", ""))
                continue
            checks.append(_asked(name, ask, subject))
    return checks


def _asked(name: str, ask: Callable[[Subject], str], subject: Subject) -> Check:
    """A check's answer; a failure that nobody foresaw is one too, since a run would end in it."""
    try:
        return Check(name, "ok", ask(subject), "")
    except ActiveDPOError as error:
        return Check(name, "refused", error.in_one_line, error.hint or "")
    except Exception as error:
        return Check(name, "refused", f"{type(error).__name__}: {error}".splitlines()[0], "")


def _template_checks(base: BaseWeights, config: Config) -> list[Check]:
    """What the chat template makes of an example; without one, or with one that is not used, nothing is asked."""
    from activedpo_cli.models.encoding import EXAMPLE, encode_prompt, renders_plain_text, stop_token_ids
    from activedpo_cli.models.template_checks import CHECKS as TEMPLATE_CHECKS
    from activedpo_cli.models.template_checks import Rendered, findings

    tokenizer = base.tokenizer
    if not renders_plain_text(tokenizer, config.prompts.chat_template):
        return [Check("chat template", "ok", "none is used: prompts are read as they are", "")]
    rendering = prompt_rendering(config)
    stops = stop_token_ids(tokenizer, base.model.generation_config, config.generate.stop_token_ids)
    rendered = Rendered(tokenizer, rendering["template_date"], rendering["template_kwargs"], stops)
    try:
        encode_prompt(tokenizer, list(EXAMPLE), **rendering)
    except ActiveDPOError as error:
        return [Check("chat template", "refused", error.in_one_line, error.hint or "")]
    return [
        _template_check(f"chat template: {name}", findings(rendered, list(EXAMPLE), name)) for name in TEMPLATE_CHECKS
    ]


def _template_check(name: str, found: "list[Finding]") -> Check:
    if not found:
        return Check(name, "ok", "", "")
    (finding,) = found
    return Check(name, "refused" if finding.is_wrong else "warning", finding.says, finding.do)


@contextmanager
def _location(config: Config) -> Iterator[tuple[str, str | None]]:
    """Where the weights are; those of an adapter, merged, or of a GGUF file stand there while this is open."""
    from activedpo_cli.models.resolve import is_adapter_folder, is_gguf_file, resolve_model

    found = resolve_model(config.model.name, config.model.revision, may_be_packed=True)
    if found.path is None:
        yield found.hub_id or config.model.name, found.revision
    elif is_adapter_folder(found.path):
        from activedpo_cli.models.merging import merge_adapter_model

        with tempfile.TemporaryDirectory() as folder:
            merge_adapter_model(Path(found.path), Path(folder) / "model")
            yield str(Path(folder) / "model"), None
    elif is_gguf_file(found.path):
        from activedpo_cli.models.gguf_files import convert_gguf

        with tempfile.TemporaryDirectory() as folder:
            convert_gguf(Path(found.path), config.model.dtype, Path(folder) / "model")
            yield str(Path(folder) / "model"), None
    else:
        yield found.path, None


def _format_check(base: BaseWeights) -> Check:
    from activedpo_cli.policy.number_format import advice_on_format

    advice = advice_on_format(base.model)
    return Check("number format", "ok", "", "") if advice is None else Check("number format", "warning", *advice)


def _described(base: BaseWeights) -> str:
    model: Any = base.model
    parts = {str(weights.dtype).removeprefix("torch.") for weights in model.parameters()}
    return f"{type(model).__name__}, {', '.join(sorted(parts))}, {base.device}, {model.config._attn_implementation}"


def _first_step(subject: Subject) -> str:
    """Train one step on made-up preferences: rewards have to be 0, or the audit stops it."""
    from activedpo_cli.gradients.trial import made_up_responses
    from activedpo_cli.train.dpo_trainer import DPOExample, train_dpo

    policy = subject.trial.policy
    rows = []
    for one in made_up_responses(policy).each():
        answer = one.response_mask[0]
        rows.append((one.input_ids[0, ~answer].tolist(), one.input_ids[0, answer].tolist()))
    examples = [
        DPOExample(pair_id=f"made-up/{place}", prompt_ids=prompt, chosen_ids=chosen, rejected_ids=rows[place - 1][1])
        for place, (prompt, chosen) in enumerate(rows)
    ]
    one_step = {"num_train_epochs": 1, "per_device_train_batch_size": len(rows), "gradient_accumulation_steps": 1}
    if subject.settings.train.label_smoothing == FROM_OVERLAP:  # nobody has answered here
        one_step["label_smoothing"] = 0
    settings = subject.settings.train.model_copy(update=one_step)
    with tempfile.TemporaryDirectory() as scratch:
        result = train_dpo(
            policy,
            subject.base.tokenizer,
            examples,
            settings,
            seed=0,
            device=subject.base.device,
            on_log=lambda row: None,
            scratch=Path(scratch),
        )
    first = result.metrics[0]
    reward = max(abs(first["rewards/chosen"]), abs(first["rewards/rejected"]))
    loss = f"{first['loss']:.4f}"
    is_sigmoid = settings.loss_type == "sigmoid"
    return f"first loss {loss}{f' (ln 2 is {math.log(2):.4f})' if is_sigmoid else ''}, reward {reward:.1g}"
