"""Asks of a chat template, before anything is made with it, whether it takes the prompts, opens answers and ends them."""

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from activedpo_cli.base.config import prompt_rendering
from activedpo_cli.base.errors import InvalidDataError, naming
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.records import Prompt, PromptText
from activedpo_cli.base.settings import Config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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

    checks = ("texts are shown", "opens answers", "prompts stay", *(("answers join",) if are_given else ()))
    kinds = _one_of_each_kind(prompts)
    for name, prompt in kinds:
        with naming(name):
            encode_prompt(tokenizer, prompt, **prompt_rendering(config))
    _tell(tokenizer, [prompt for _, prompt in kinds], config, progress, checks, (), is_first=is_first)


def check_turn_end(
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Iterable[tuple[str, PromptText]],
    config: Config,
    progress: Progress,
    stops: Collection[int],
    *,
    is_first: bool,
) -> None:
    """Warn that the chat template ends an answer with a token at which no sampling stops, where the work `is_first`."""
    kinds = [prompt for _, prompt in _one_of_each_kind(prompts)]
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
