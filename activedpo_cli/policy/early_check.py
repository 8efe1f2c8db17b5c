"""What is asked of a model before anything is generated with it; `doctor --model` asks the same and shows the answers.

A check takes a `Subject`, returns in a few words what it found, and raises an ActiveDPOError with the way out where the
model can't be used. One that holds for any use of a model stands in `CHECKS`, one of gradients in
`gradients.policy_check`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.step import Context
from activedpo_cli.policy.policy import BaseWeights

if TYPE_CHECKING:
    from activedpo_cli.gradients.policy_check import Trial

READS = (
    *("adapter.r", "adapter.lora_alpha", "adapter.lora_dropout", "adapter.target_modules"),
    *("featurize.compute", "select.method"),
)
"""The settings that decide what is asked, and nothing of what is generated."""


class Subject:
    """A model that is to be used: its weights and tokenizer, and the settings it is to be used with."""

    def __init__(self, base: BaseWeights, settings: Config) -> None:
        self.base, self.settings = base, settings
        self._trial: Trial | None = None

    @property
    def trial(self) -> "Trial":
        """The base with a fresh adapter on it, which `checking` takes off again."""
        from activedpo_cli.gradients.policy_check import Trial
        from activedpo_cli.models.adapters import with_fresh_adapter

        if self._trial is None:
            self._trial = Trial(with_fresh_adapter(self.base.model, self.settings.adapter, seed=0))
        return self._trial

    def take_adapter_off(self) -> None:
        """Leave the base as it was."""
        if self._trial is not None:
            self._trial.policy.unload()
            if hasattr(self.base.model, "peft_config"):
                del self.base.model.peft_config


Check = Callable[[Subject], str]


def every_token_has_a_row(subject: Subject) -> str:
    """Refuse a tokenizer that makes tokens of ordinary text which the model does not have; special ones may be unused."""
    embeddings: Any = subject.base.model.get_input_embeddings()
    tokenizer, rows = subject.base.tokenizer, len(embeddings.weight)
    if len(tokenizer) <= rows:
        return f"{len(tokenizer)} tokens, {rows} rows of embeddings"
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    beyond = {text: token for text, token in tokenizer.get_vocab().items() if token >= rows}
    ordinary = sorted(token for token in beyond.values() if token not in special)
    if ordinary:
        raise InvalidDataError(
            f"the tokenizer makes {len(ordinary)} tokens that the model does not have",
            details=[f"the first is {ordinary[0]}, and the model has {rows}"],
            hint="the tokenizer is of another model: put the files of the right one beside the weights",
        )
    first = min(beyond, key=beyond.__getitem__, default="")
    return f"{rows} rows of embeddings; {len(beyond)} special tokens have none, first `{first}`"


CHECKS: dict[str, Check] = {"every token has a row": every_token_has_a_row}
"""By what they make sure of: of any model, whatever the method."""


def adapter_checks(*, gradients: bool = True) -> dict[str, Check]:
    """The checks of the model with a fresh adapter; those of `gradients` only where features are computed."""
    from activedpo_cli.gradients import policy_check

    def ask(name: str, subject: Subject) -> str:
        policy_check.CHECKS[name](subject.trial)
        return policy_check.found(subject.trial, name)

    names = policy_check.CHECKS if gradients else (policy_check.RUNS,)
    checks: dict[str, Check] = {name: partial(ask, name) for name in names}
    return {"the adapter can be put on": _adapter_fits} | checks


def _adapter_fits(subject: Subject) -> str:
    adapter = subject.settings.adapter
    names = adapter.target_modules if isinstance(adapter.target_modules, str) else ", ".join(adapter.target_modules)
    assert subject.trial is not None
    return f"rank {adapter.r} on {names}"


@contextmanager
def checking(base: BaseWeights, settings: Config) -> Iterator[Subject]:
    """A model to ask; afterwards its adapter is off again, unless a check has failed halfway."""
    subject = Subject(base, settings)
    yield subject
    subject.take_adapter_off()


def check_model(context: Context, base: BaseWeights) -> None:
    """Ask all of a model that is about to generate; of its gradients only where the run needs them.

    Raises UsageError or InvalidDataError, naming layers and the way out, where the model can't be used as it is set.
    """
    config = context.settings
    wanted = config.featurize.compute
    needs = discovery.declared_needs("acquisition", config.select.method) if wanted is None else wanted
    checks = CHECKS | adapter_checks(gradients="features" in needs)
    try:
        with checking(base, config) as subject:
            for check in checks.values():
                check(subject)
    except BaseException:
        if context.execution.kept is not None:
            context.execution.kept.forget()
        raise
