"""Proves that what a server samples from is the policy: its log-probabilities of fixed texts, against the model's in memory.

An adapter changes some tokens more and others less. How much of this pattern d = log π_θ − log π_ref the server shows is the
projection of its own change e on it, ⟨e, d⟩ / ⟨d, d⟩: 1 where the adapter is applied, 0 where it is not. That tells more
than a distance does, which an adapter of small effect keeps. Of ⟨d, d⟩ the part is taken off that is rounding, measured by
the server's distance from the base in memory; where that is most of it, nothing can be told.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from activedpo_cli.base.errors import ActiveDPOError

if TYPE_CHECKING:
    from torch import Tensor

TEXTS = (
    "Question: What is the capital of France?\nAnswer: The capital of France is Paris, a city on the river Seine.",
    "User: Can you help me with my homework?\nAssistant: Of course! Tell me what you are working on, and we start.",
    "Once upon a time there was a little girl who lived near the forest. One day she found a small red box.",
    "Summary: The author asks whether to quit a job without another one. Most replies advise to wait and to save.",
)
"""Each is a prompt with its continuation; they are the same in every run, so that rounds compare."""
LONGEST = 96
"""Tokens of a text that are read at most."""
FULL_PRECISION_BYTES = 4
LEAST_SHARE, LARGEST_SHARE = 0.8, 1.25
"""Of the adapter's effect, how much the server may show."""
UNAPPLIED_SHARE = 0.2
LARGEST_ERROR = 0.08
"""Standard error of that share up to which it says anything: 1 and 0 are then twelve of it apart."""
LEAST_EFFECT = 3
"""Of the rounding, how large the adapter's effect on a token must be for that share to say anything."""
ERRORS = 3
"""Standard errors by which a share may be beyond its bounds."""
STRAY_SHARE, LEAST_STRAY = 0.25, 0.001
"""How far a server may be from the policy beside what it is from the base: of the adapter's effect, and in nats."""


@dataclass(frozen=True)
class Limits:
    """How far log-probabilities may be from those in memory, in nats.

    Attributes:
        tolerance: As the mean over the tokens of the texts.
        rounding: How far two computations of the same are from each other at least, as a root mean square. Of one base they
            may agree to the last bit, and with an adapter, beside or merged, each token is rounded anew.

    """

    tolerance: float
    rounding: float


FULL_PRECISION, HALF_PRECISION = Limits(0.01, 1e-5), Limits(0.1, 0.02)
"""Two engines in float32 differ by 1e-6 to 1e-5. In bfloat16 they differ by 0.01 to 0.03, by their order of sums."""
Finding = Literal["fits", "can't be told", "differs", "not applied", "in part"]


@dataclass(frozen=True)
class Comparison:
    """The log-probabilities of some tokens: the server's, those of the policy in memory, and those of its base.

    `served_base` are the server's own of its base, where it was asked for them; they are free of what both have in common.
    `rounding` is how far two engines are from each other that compute the same, as a root mean square in nats.
    """

    served: Sequence[float]
    policy: Sequence[float]
    base: Sequence[float]
    served_base: Sequence[float] | None = None
    rounding: float = 0.0

    @property
    def mean(self) -> float:
        """How far the server's are from the policy's, per token."""
        return _mean_difference(self.served, self.policy)

    @property
    def worst(self) -> float:
        """The same for the token that is farthest."""
        return max(abs(a - b) for a, b in zip(self.served, self.policy, strict=True))

    @property
    def from_base(self) -> float:
        """How far the server's are from the base's, per token."""
        return _mean_difference(self.served, self.base)

    @property
    def effect(self) -> float:
        """How far the adapter takes the policy from the base, per token."""
        return _mean_difference(self.policy, self.base)

    @property
    def allowed_stray(self) -> float:
        """How far the server may be from what it should say, as a root mean square; infinite where its base is unknown."""
        if self.served_base is None:
            return math.inf
        return LEAST_STRAY + ERRORS * self.rounding + STRAY_SHARE * _spread(self.policy, self.base)

    def share(self) -> "Share | None":
        """How much of the adapter's effect the server shows; None where there is none, or none beside the rounding."""
        wanted = [a - b for a, b in zip(self.policy, self.base, strict=True)]
        origin = self.base if self.served_base is None else self.served_base
        shown = [a - b for a, b in zip(self.served, origin, strict=True)]
        count, square = len(wanted), math.fsum(d * d for d in wanted)
        if square == 0 or square < count * (LEAST_EFFECT * self.rounding) ** 2:
            return None
        signal = square - count * self.rounding**2
        share = math.fsum(e * d for e, d in zip(shown, wanted, strict=True)) / signal
        rest = math.fsum((e - share * d) ** 2 for e, d in zip(shown, wanted, strict=True))
        error = math.sqrt(rest * square / max(count - 1, 1)) / signal
        return Share(share, error, math.sqrt(rest / count))


@dataclass(frozen=True)
class Share:
    """How much of an adapter's effect is seen, its standard error, and how far tokens are from that share of it (nats)."""

    value: float
    error: float
    rest: float

    @property
    def is_whole(self) -> bool:
        """Whether it is 1, as well as can be seen."""
        beyond = ERRORS * self.error
        return LEAST_SHARE - beyond <= self.value <= LARGEST_SHARE + beyond


def judged(comparison: Comparison, tolerance: float) -> Finding:
    """Whether the server answers as the policy does.

    `can't be told` is a fit too: the adapter's effect on these tokens is too small beside the server's rounding to see
    whether it is applied.
    """
    is_close = comparison.mean <= tolerance  # which is false for what is no number
    is_close &= _spread(comparison.served, comparison.policy) <= comparison.allowed_stray
    share = comparison.share()
    if share is None:
        fit: Finding = "fits" if comparison.effect == 0 else "can't be told"
        return fit if is_close else "differs"
    is_told = share.error <= LARGEST_ERROR
    if is_told and not share.is_whole and share.rest <= comparison.allowed_stray:
        if abs(share.value) >= UNAPPLIED_SHARE:
            return "in part"
        if comparison.from_base <= max(comparison.effect / 2, tolerance):
            return "not applied"
    if not is_close or (is_told and not share.is_whole):
        return "differs"
    return "fits" if is_told else "can't be told"


def rounding_of(served_base: Sequence[float], base: Sequence[float], limits: Limits) -> float:
    """How far a server's log-probabilities are from those in memory of one and the same base, and at least the limit."""
    return max(_spread(served_base, base), limits.rounding)


def limits_of(model: Any) -> Limits:
    """The limits for a model, by its number format."""
    return FULL_PRECISION if model.dtype.itemsize >= FULL_PRECISION_BYTES else HALF_PRECISION


def probe_texts(model: Any, tokenizer: Any) -> list[list[int]]:
    """The fixed texts as tokens, at least two each; of a tokenizer that has no word for any, ordinary tokens."""
    from activedpo_cli.models.encoding import encode_text
    from activedpo_cli.models.loading import context_length
    from activedpo_cli.models.vocabulary import ordinary_ids

    rows = len(model.get_input_embeddings().weight)
    longest = min(LONGEST, (context_length(model) or LONGEST) - 1)
    texts = [encode_text(tokenizer, text)[:longest] for text in TEXTS]
    usable = [ids for ids in texts if len(ids) > 1 and max(ids) < rows]
    return usable or [(ordinary_ids(model) * 2)[:longest]]


def own_logps(model: Any, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
    """The log-probability of each token of the responses, by the model in memory as it is set; one text at a time.

    Raises ActiveDPOError where one is not finite.
    """
    from activedpo_cli.gradients.batch import pad_responses
    from activedpo_cli.gradients.logps import token_logps

    values: list[float] = []
    for prompt, response in zip(prompts, responses, strict=True):
        batch = pad_responses([prompt], [response], 0, model.device)
        values += token_logps(model, batch)[0, -len(response) :].double().tolist()
    if not all(map(math.isfinite, values)):
        raise ActiveDPOError(
            "the model's next-token probabilities are not finite",
            hint="try `--dtype float32`; if it stays, the weights or the adapter are broken",
        )
    return values


def own_logits(model: Any, prompt: Sequence[int], response: Sequence[int]) -> "Iterator[tuple[Tensor, Tensor]]":
    """The logits from which the model in memory would have drawn each token of a response, and the tokens, in parts."""
    from activedpo_cli.gradients.batch import pad_responses
    from activedpo_cli.gradients.logps import response_logits

    return response_logits(model, pad_responses([prompt], [response], 0, model.device))


def own_base_logps(model: Any, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
    """The same with the adapters off."""
    from activedpo_cli.models.adapters import reference_mode

    with reference_mode(model):
        return own_logps(model, prompts, responses)


def _spread(some: Sequence[float], others: Sequence[float]) -> float:
    return math.sqrt(fmean((a - b) ** 2 for a, b in zip(some, others, strict=True)))


def _mean_difference(some: Sequence[float], others: Sequence[float]) -> float:
    return fmean(abs(a - b) for a, b in zip(some, others, strict=True))
