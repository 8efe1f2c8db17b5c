"""What is asked of a model before anything is generated with it; `doctor --model` asks the same and shows the answers.

A check takes a `Subject`, returns in a few words what it found, and raises an ActiveDPOError with the way out where the
model can't be used. One that holds for any use of a model stands in `CHECKS`, one of gradients in
`gradients.policy_check`.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from activedpo_cli.base import discovery
from activedpo_cli.base.config import prompt_rendering
from activedpo_cli.base.errors import InvalidDataError, naming
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
SHORT, SHORTER = 6, 3
"""Tokens of the two made-up prompts of a batch."""
FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, LookupError)
"""What a library raises where its code does not fit the weights or the tokens."""
ONE_AT_A_TIME = "one prompt at a time: --set generate.unit_size=1 (and --set evaluate.unit_size=1, where that is set)"
USUAL_PROMPT = 512
"""Tokens of the longest prompt, where no prompts are known."""


class Subject:
    """A model that is to be used: its weights and tokenizer, and the settings it is to be used with.

    `longest_prompt` counts the tokens of the longest prompt there is; it is asked for only where the answer matters.
    """

    def __init__(
        self, base: BaseWeights, settings: Config, longest_prompt: Callable[[], int] = lambda: USUAL_PROMPT
    ) -> None:
        self.base, self.settings, self._longest_prompt = base, settings, longest_prompt
        self._trial: Trial | None = None

    @cached_property
    def prompt_lengths(self) -> dict[int, str]:
        """The lengths of prompts to try, each with the name of the length beyond which the model computes otherwise.

        There is a short one without a name, one for each length that its answer passes, and the longest.
        """
        from activedpo_cli.models.lengths import turning_lengths
        from activedpo_cli.models.loading import context_length
        from activedpo_cli.models.padded_sampling import STEPS

        turns = turning_lengths(self.base.model.config)
        tried = {SHORT: ""}
        if not turns:
            return tried
        longest = self._longest_prompt() + self.settings.generate.max_new_tokens
        longest = min(longest, context_length(self.base.model) or longest)
        passed = {length: f"`{name}`, {length} tokens" for length, name in turns.items() if length < longest}
        for length, name in passed.items():
            tried.setdefault(max(length - STEPS // 2, SHORTER), name)
        if passed:
            tried.setdefault(max(longest - STEPS, SHORT), passed[max(passed)])
        return tried

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
    model, largest = subject.base.model, 0.0
    for length in subject.prompt_lengths:
        change = _change_by_later_tokens(subject, length)
        if not math.isfinite(change):
            raise InvalidDataError(
                "the model's predictions are no numbers",
                details=[
                    "its logits are infinite or not a number (NaN): its weights may be too large, or damaged",
                    _named(subject),
                ],
                hint=_other_code(subject, subject.prompt_lengths[length]),
            )
        if change > _limits(subject).later:
            raise InvalidDataError(
                "the model is no causal one: its predictions change with the tokens that follow",
                details=[f"by {change:.2g} standard deviations of the logits", _named(subject)],
                hint="take a model that was made to continue texts"
                + (", or correct `is_decoder` in its config.json" if hasattr(model.config, "is_decoder") else ""),
            )
        largest = max(largest, change)
    return f"predictions change by {largest:.1g} deviations"


def a_batch_changes_nothing(subject: Subject) -> str:
    """Refuse a model that samples otherwise in a padded batch, or with its cache, than it reads a text alone."""
    is_alone, limit = subject.settings.generate.unit_size == 1, _limits(subject).batch
    largest = 0.0
    for length in subject.prompt_lengths:
        worst = _change_by_sampling(subject, length, is_alone=is_alone)
        if not isinstance(worst, float) or worst > limit:
            raise _sampling_refused(subject, length, worst)
        largest = max(largest, worst)
    return f"sampled logits change by {largest:.1g} deviations"


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


def _change_by_later_tokens(subject: Subject, length: int) -> float:
    """Raises InvalidDataError, with the library's words, where the model can't read a text at all."""
    from activedpo_cli.models.padded_sampling import change_by_later_tokens
    from activedpo_cli.models.quiet import quiet_libraries

    ids = _ordinary_ids(subject, length + 5)
    try:
        with quiet_libraries():
            return change_by_later_tokens(subject.base.model, ids[: length + 2], ids[length + 2 :])
    except FAILURES as error:
        if is_out_of_memory(error):
            raise
        raise InvalidDataError(
            "the model can't read tokens of its vocabulary",
            details=[_first_line(error), _named(subject)],
            hint="another number format or attention may help: `--dtype float32`, `--set model.attn_implementation=eager`",
        ) from error


def _change_by_sampling(subject: Subject, length: int, *, is_alone: bool) -> float | str:
    """How much two prompts' sampled logits change, in a batch or each alone; the first failure where there is one."""
    ids = _ordinary_ids(subject, length + SHORTER)
    rows = [ids[:length], ids[length:]]
    found = [_asked_to_sample(subject.base.model, batch) for batch in ([[row] for row in rows] if is_alone else [rows])]
    return max(found, key=lambda change: change if isinstance(change, float) else math.inf)


def _asked_to_sample(model: Any, rows: list[list[int]]) -> float | str:
    """How much a batch changes, or the library's words where it can't be sampled."""
    from activedpo_cli.models.padded_sampling import change_by_batch
    from activedpo_cli.models.quiet import quiet_libraries

    try:
        with quiet_libraries():
            return change_by_batch(model, rows)
    except FAILURES as error:
        if is_out_of_memory(error):
            raise
        return _first_line(error)


def _sampling_refused(subject: Subject, length: int, worst: float | str) -> InvalidDataError:
    """What to say of a model that samples wrongly after prompts of some length, or can't sample them."""
    alone = (_change_by_sampling(subject, each, is_alone=True) for each in subject.prompt_lengths)
    works_alone = subject.settings.generate.unit_size > 1 and all(
        isinstance(change, float) and change <= _limits(subject).batch for change in alone
    )
    beyond = "" if works_alone else subject.prompt_lengths[length]
    said = worst if isinstance(worst, str) else f"its logits differ by {worst:.2g} standard deviations"
    if worst == math.inf:
        said = "its logits are infinite or not a number (NaN)"
    return InvalidDataError(
        "the model samples otherwise "
        + ("in a batch of prompts of several lengths" if works_alone else "with its cache")
        + " than it reads a text alone",
        details=[said, *([f"in texts longer than its {beyond}"] if beyond else []), _named(subject)],
        hint=ONE_AT_A_TIME if works_alone else _other_code(subject, beyond),
    )


def _other_code(subject: Subject, beyond: str) -> str:
    """The way out where a model's own code is at fault, perhaps only in texts beyond some length."""
    if beyond:
        return (
            f"keep prompts and answers together within its {beyond} (shorter prompts, a smaller --max-new-tokens), or take "
            "another model, or another version of transformers"
        )
    model: Any = subject.base.model
    is_eager = model.config._attn_implementation == "eager"
    is_half = model.dtype.itemsize < FULL_PRECISION_BYTES
    tries = [] if is_eager else ["--set model.attn_implementation=eager"]
    tries += ["--dtype float32"] if is_half else []
    return (
        "its code in this version of transformers is not fit for sampling: "
        + "".join(f"try {words}, or " for words in tries)
        + "take another model, or another version"
    )


def _named(subject: Subject) -> str:
    """Whose code it is."""
    from transformers import __version__

    return f"the model is a `{type(subject.base.model).__name__}` of transformers {__version__}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _ordinary_ids(subject: Subject, count: int) -> list[int]:
    """Different tokens of the vocabulary without a meaning of their own, where there are as many."""
    from activedpo_cli.models.vocabulary import ordinary_ids

    ordinary = ordinary_ids(subject.base.model)
    return [ordinary[place * len(ordinary) // count] for place in range(count)]


@dataclass(frozen=True)
class Limits:
    """How far logits may differ, in their standard deviations.

    `batch` is for batches of other shapes, in which roundings differ, and `later` for one shape.
    """

    batch: float
    later: float


FULL_PRECISION, QUANTISED, HALF_PRECISION = Limits(0.002, 0.001), Limits(0.02, 0.001), Limits(0.3, 0.015)
"""In float32 the sound families of the tests change by at most 6e-6 in a batch and 2e-6 in one shape, and MiniMax's test
model, which padding shifts, by 0.0064. In bfloat16 a small Llama changes by 0.02 in a batch; deeper models round more often.
"""


def _limits(subject: Subject) -> Limits:
    """By the model's number format; the kernels of quantised layers may round as in half precision whatever it is."""
    model = subject.base.model
    if model.dtype.itemsize < FULL_PRECISION_BYTES:
        return HALF_PRECISION
    is_quantised = any(weights.element_size() < FULL_PRECISION_BYTES for weights in model.parameters())
    return QUANTISED if is_quantised else FULL_PRECISION


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
def checking(
    base: BaseWeights, settings: Config, longest_prompt: Callable[[], int] = lambda: USUAL_PROMPT
) -> Iterator[Subject]:
    """A model to ask; afterwards its adapter is off again, unless a check has failed halfway."""
    subject = Subject(base, settings, longest_prompt)
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
        with checking(base, config, partial(_longest_prompt, context, base)) as subject:
            for check in checks.values():
                check(subject)
    except BaseException:
        if context.execution.kept is not None:
            context.execution.kept.forget()
        raise


def _longest_prompt(context: Context, base: BaseWeights) -> int:
    """In tokens, of the run's prompts that leave room for an answer."""
    from activedpo_cli.models.encoding import encode_prompt
    from activedpo_cli.models.loading import context_length

    config = context.settings
    room = context_length(base.model)
    longest = 0
    for prompt in context.run.prompts():
        with naming(f"prompt `{prompt.prompt_id}`"):
            tokens = len(encode_prompt(base.tokenizer, prompt.prompt, **prompt_rendering(config)))
        if room is None or tokens + config.generate.max_new_tokens <= room:
            longest = max(longest, tokens)
    return longest
