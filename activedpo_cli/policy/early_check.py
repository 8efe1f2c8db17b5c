"""What is asked of a model before anything is generated with it; `doctor --model` asks the same and shows the answers.

A check takes a `Subject`, returns in a few words what it found, and raises an ActiveDPOError with the way out where the
model can't be used. One that holds for any use of a model stands in `CHECKS`, one of gradients in
`gradients.policy_check`.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.out_of_memory import is_out_of_memory
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.step import Context
from activedpo_cli.policy.policy import BaseWeights

if TYPE_CHECKING:
    from activedpo_cli.gradients.policy_check import Trial

READS = (
    *("adapter.r", "adapter.lora_alpha", "adapter.use_rslora", "adapter.lora_dropout", "adapter.target_modules"),
    *("featurize.compute", "select.method"),
)
"""The settings that decide what is asked, and nothing of what is generated."""
FULL_PRECISION_BYTES = 4


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
    added = tokenizer.added_tokens_decoder.items()
    special = set(tokenizer.all_special_ids) | {token for token, text in added if text.special}
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


def no_token_sees_later_ones(subject: Subject) -> str:
    """Refuse a model whose predictions depend on what follows: the log-probability of a response would read the response."""
    from activedpo_cli.models.padded_sampling import change_by_later_tokens

    ids = _ordinary_ids(subject, 11)
    change = change_by_later_tokens(subject.base.model, ids[:8], ids[8:])
    if change > _tolerance(subject) / 20:  # the shape of the batch is the same, and so are roundings
        raise InvalidDataError(
            "the model is no causal one: its predictions change with the tokens that follow",
            details=[f"by {change:.2g} standard deviations of the logits"],
            hint="take a model that was made to continue texts, or correct `is_decoder` and the like in its config.json",
        )
    return f"predictions change by {change:.1g} deviations"


def a_batch_changes_nothing(subject: Subject) -> str:
    """Refuse a model that samples otherwise in a padded batch, or with its cache, than it reads a text alone."""
    model, is_alone = subject.base.model, subject.settings.generate.unit_size == 1
    ids = _ordinary_ids(subject, 9)
    rows = [ids[:6], ids[6:]]
    found = [_asked_to_sample(model, batch) for batch in ([[row] for row in rows] if is_alone else [rows])]
    worst = max(found, key=lambda change: change if isinstance(change, float) else math.inf)
    if isinstance(worst, float) and worst <= _tolerance(subject):
        return f"sampled logits change by {worst:.1g} deviations"
    works_alone = not is_alone and all(
        isinstance(change, float) and change <= _tolerance(subject)
        for change in (_asked_to_sample(model, [row]) for row in rows)
    )
    said = f"its logits differ by {worst:.2g} standard deviations" if isinstance(worst, float) else worst
    raise InvalidDataError(
        "the model samples otherwise "
        + ("in a batch of prompts of several lengths" if works_alone else "with its cache")
        + " than it reads a text alone",
        details=[said],
        hint="one prompt at a time: --set generate.unit_size=1 (and --set evaluate.unit_size=1, where that is set)"
        if works_alone
        else "its code in this version of transformers is not fit for sampling: try --set model.attn_implementation=eager, "
        "or another version",
    )


def training_finds_the_backbone(subject: Subject) -> str:
    """Refuse an architecture that names its layers below the head otherwise than TRL looks for them."""
    model = subject.base.model
    if model.base_model is model:
        raise InvalidDataError(
            f"TRL can't train a `{type(model).__name__}`: it finds no layers below its head by the name "
            f"`{model.base_model_prefix}`",
            hint="take a model of another architecture, or a version of transformers in which this one is consistent",
        )
    return f"`{model.base_model_prefix}`"


def _asked_to_sample(model: Any, rows: list[list[int]]) -> float | str:
    """How much a batch changes, or the library's words where it can't be sampled."""
    from activedpo_cli.models.padded_sampling import change_by_batch
    from activedpo_cli.models.quiet import quiet_libraries

    try:
        with quiet_libraries():
            return change_by_batch(model, rows)
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        if is_out_of_memory(error):
            raise
        return f"{type(error).__name__}: {error}".splitlines()[0]


def _ordinary_ids(subject: Subject, count: int) -> list[int]:
    """Different tokens of the vocabulary without a meaning of their own, where there are as many."""
    from activedpo_cli.models.vocabulary import ordinary_ids

    ordinary = ordinary_ids(subject.base.model)
    return [ordinary[place * len(ordinary) // count] for place in range(count)]


def _tolerance(subject: Subject) -> float:
    """In standard deviations of the logits; half precision rounds otherwise in every shape of a batch."""
    return 0.02 if subject.base.model.dtype.itemsize >= FULL_PRECISION_BYTES else 0.3


CHECKS: dict[str, Check] = {
    "every token has a row": every_token_has_a_row,
    "no token sees later ones": no_token_sees_later_ones,
    "a batch changes nothing": a_batch_changes_nothing,
    "training finds the backbone": training_finds_the_backbone,
}
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
