"""Asks of a model, before anything is generated with it, whether a run can be made with it.

Can its adapter be featurized, and does its chat template take the prompts, open answers and end them?
"""

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from activedpo_cli.base import discovery
from activedpo_cli.base.config import prompt_rendering
from activedpo_cli.base.errors import InvalidDataError, naming
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.records import Prompt, PromptText
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.step import Context
from activedpo_cli.policy.policy import BaseWeights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

READS = (
    *("adapter.r", "adapter.lora_alpha", "adapter.lora_dropout", "adapter.target_modules"),
    *("featurize.compute", "select.method"),
)
"""The settings that decide what is asked, and nothing of what is generated."""


def check_model(context: Context, base: BaseWeights) -> None:
    """Put a fresh adapter on the base, check it, and take it off again; nothing where the run needs no gradients.

    Raises UsageError, naming the weights, where training would change some that features do not see.
    """
    from activedpo_cli.gradients.policy_check import check_policy
    from activedpo_cli.models.adapters import with_fresh_adapter

    config = context.settings
    wanted = config.featurize.compute
    if "features" not in (discovery.declared_needs("acquisition", config.select.method) if wanted is None else wanted):
        return
    try:
        policy = with_fresh_adapter(base.model, config.adapter, seed=0)
        check_policy(policy)
    except BaseException:
        if context.execution.kept is not None:
            context.execution.kept.forget()
        raise
    policy.unload()
    if hasattr(base.model, "peft_config"):
        del base.model.peft_config


def check_rendering(
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Iterable[tuple[str, PromptText]],
    config: Config,
    progress: Progress,
    *,
    is_first: bool,
    are_given: bool = False,
) -> None:
    """Render a prompt of each kind, and compare it with the same and an answer; what a run should know is a warning.

    A kind is the roles of its messages; answers that `are_given` come from a file. Raises InvalidDataError, naming a prompt,
    where the template refuses it, and, where nothing `is_first` made with the template, also where it would not let the
    model answer.
    """
    from activedpo_cli.models.encoding import encode_prompt

    checks = ("opens answers", "prompts stay", *(("answers join",) if are_given else ()))
    kinds = _one_of_each_kind(prompts)
    for name, prompt in kinds:
        with naming(name):
            encode_prompt(tokenizer, prompt, **prompt_rendering(config))
    _tell(tokenizer, [prompt for _, prompt in kinds], config, progress, checks, (), is_first=is_first)


def check_turn_end(
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Iterable[Prompt],
    config: Config,
    progress: Progress,
    stops: Collection[int],
    *,
    is_first: bool,
) -> None:
    """Warn that the chat template ends an answer with a token at which no sampling stops, where that `is_first` sampled."""
    kinds = [prompt for _, prompt in _one_of_each_kind(named(prompts))]
    _tell(tokenizer, kinds, config, progress, ("turns end",), stops, is_first=is_first)


def named(prompts: Iterable[Prompt]) -> Iterable[tuple[str, PromptText]]:
    """Prompts of a run with what an error calls them."""
    return ((f"prompt `{prompt.prompt_id}`", prompt.prompt) for prompt in prompts)


def _one_of_each_kind(prompts: Iterable[tuple[str, PromptText]]) -> list[tuple[str, PromptText]]:
    found: dict[tuple[str, ...], tuple[str, PromptText]] = {}
    for name, prompt in prompts:
        roles = tuple(message["role"] for message in prompt) if isinstance(prompt, list) else ("user",)
        found.setdefault(roles, (name, prompt))
    return list(found.values())


def _tell(
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[PromptText],
    config: Config,
    progress: Progress,
    checks: tuple[str, ...],
    stops: Collection[int],
    *,
    is_first: bool,
) -> None:
    """Say what each check finds first among the prompts; what is wrong goes before the rest."""
    from activedpo_cli.models.encoding import as_messages, renders_plain_text
    from activedpo_cli.models.template_checks import Rendered, findings

    if not renders_plain_text(tokenizer, config.prompts.chat_template):
        return
    rendering = prompt_rendering(config)
    rendered = Rendered(tokenizer, rendering["template_date"], rendering["template_kwargs"], stops)
    for check in checks:
        found = [finding for prompt in prompts for finding in findings(rendered, as_messages(prompt), check)]
        if not found:
            continue
        finding = max(found, key=lambda finding: finding.is_wrong)
        if finding.is_wrong and is_first:
            raise InvalidDataError(finding.says, hint=finding.do)
        if finding.is_wrong or is_first:
            progress.warn(finding.says + (f"; {finding.do}" if finding.do else ""))
