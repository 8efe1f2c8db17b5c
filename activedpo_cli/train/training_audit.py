"""What training really saw, compared with what it was given; and the conditions under which it must stop."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError
from activedpo_cli.base.settings import TrainSettings
from activedpo_cli.base.shapes import Float
from activedpo_cli.train.expected_loss import ExpectedLoss, expected_preference_loss, next_tokens, sums_of_logps

ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}
ROUGH_ROUNDING = 0.1
"""How far two computations of a log-probability may be apart, as a share of the root of the sum of squares over its tokens;
generous, since a router may decide otherwise when sums are taken in another order."""


@dataclass(frozen=True, kw_only=True)
class DPOExample:
    """One preference as the token ids that *generate* stored."""

    pair_id: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


class BatchAudit:
    """Which rows a training saw, by the names that errors call them, and the conditions under which it must stop."""

    row = "row"
    rows = "rows"
    loss = "loss"
    gradient = "a gradient"
    hint = "look at these rows"
    memory_hint = "a smaller batch with more accumulation steps, or gradient checkpointing"

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.seen: set[int] = set()
        self.batch: list[int] = []
        self.step = 1

    def forget(self, rows: Sequence[int]) -> None:
        """Take back what was noted of rows whose pass is done again."""

    def take_news(self) -> Mapping[int, Any]:
        """What was noted of rows since this was last asked for, to tell other processes."""
        return {}

    def hear(self, news: Mapping[int, Any]) -> None:
        """Take note of what another process noted."""

    def check_batch(self, rows: Tensor, inputs: Mapping[str, Tensor]) -> None:
        """Stop unless the batch holds the tokens of its rows; the audits of DPO and of SFT know what these are."""
        raise NotImplementedError

    def expected_loss(
        self, inputs: Mapping[str, Tensor], passes: Sequence[Tensor], tokens: float | None
    ) -> ExpectedLoss | None:
        """What the loss of a batch is by the log-probabilities of its passes; None where these are not as they should be."""
        raise NotImplementedError

    def check_loss(
        self, loss: Tensor, inputs: Mapping[str, Tensor], passes: Sequence[Tensor], tokens: float | None = None
    ) -> None:
        """Stop on the first loss that is not finite, or that is not the function of the log-probabilities it should be.

        `passes` holds the log-probability of each next token, of one forward pass after the other; `tokens` is the number
        by which a loss by the token is divided where this batch is a part of an update.
        """
        if not torch.isfinite(loss).all():
            raise self._stopped(f"the {self.loss} became {loss.item()}")
        expected = self.expected_loss(inputs, passes, tokens)
        if expected is None or not expected.agrees(loss.item()):
            said = "cannot be told" if expected is None else f"make it {expected.value:.6g}"
            raise self._stopped(
                f"the {self.loss} is {loss.item():.6g}, and the log-probabilities {said}",
                "this model's architecture or the installed trl makes the loss another one than the settings name, so "
                "nothing was learnt from it; `activedpo doctor` says which versions were tested",
            )

    def check_gradient(self, parameters: Sequence[torch.nn.Parameter], *, first_step: bool) -> None:
        """Stop before an update on gradients that are not finite, or that are all zero at the first step."""
        norms = [parameter.grad.norm() for parameter in parameters if parameter.grad is not None]
        norm = torch.stack([one.to(norms[0].device) for one in norms]).norm().item() if norms else 0.0
        if not math.isfinite(norm):
            raise self._stopped(f"{self.gradient} is not finite")
        if first_step and norm == 0:
            raise self._stopped("the first gradient is zero, so nothing would be learnt")

    def check_weights(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Raise when the last update, which no loss follows, has left weights that are not finite."""
        if not all(torch.isfinite(parameter).all() for parameter in parameters):
            raise self._stopped("the last update left weights that are not finite")

    def check_complete(self, seen: set[int]) -> None:
        """Raise, naming them, when training ended without having seen every row."""
        missed = [name for place, name in enumerate(self.names) if place not in seen]
        if missed:
            raise ActiveDPOError(
                f"training left out {len(missed)} of {len(self.names)} {self.rows}", details=self._named(missed)
            )

    def too_large(self) -> ActiveDPOError:
        """What to say where memory does not suffice for what is left of a batch."""
        return ActiveDPOError(
            f"memory does not suffice for step {self.step} of training",
            details=self._named_batch(),
            hint=self.memory_hint,
        )

    def _stopped(self, reason: str, hint: str | None = None) -> ActiveDPOError:
        return ActiveDPOError(
            f"training stopped at step {self.step}: {reason}",
            details=self._named_batch(),
            hint=hint or self.hint,
        )

    def _named_batch(self) -> list[str]:
        return self._named([self.names[place] for place in self.batch])

    def _named(self, names: list[str]) -> list[str]:
        shown = [f"{self.row} {name}".strip() for name in names[:8]]
        return shown + ([f"and {len(names) - 8} more"] if len(names) > 8 else [])


class TrainingAudit(BatchAudit):
    """Follows the batches of one DPO training, so that no row is dropped, cut or extended unnoticed."""

    row, rows, loss, gradient = "pair", "preferences", "DPO loss", "a gradient of the adapter"
    hint = "look at these pairs; else try a smaller train.learning_rate, or `--dtype float32`"
    memory_hint = (
        "--train-batch-size 1 with --gradient-accumulation-steps for the same updates, or --gradient-checkpointing"
    )

    def __init__(
        self,
        examples: Sequence[DPOExample],
        settings: TrainSettings,
        policy: torch.nn.Module | None = None,
        *,
        asks_once: bool = True,
    ) -> None:
        super().__init__([example.pair_id for example in examples])
        self.examples, self.settings, self.asks_once = examples, settings, asks_once
        self.untrained = policy is not None and is_reference(policy)
        formats = set() if policy is None else {parameter.dtype for parameter in policy.parameters()}
        self.reference: dict[int, tuple[float, float]] = {}
        self.news: dict[int, tuple[float, float]] = {}
        self.format_of_logps = torch.float32
        self.share_of_rounding = max((ROUNDING.get(dtype, ROUGH_ROUNDING) for dtype in formats), default=0.0)

    def check_batch(self, rows: Tensor, inputs: Mapping[str, Tensor]) -> None:
        """Take note of a batch (chosen rows first, then rejected); raise when its tokens are not those given."""
        self.batch = rows.tolist()
        halves = zip(
            self.batch * 2, inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"], strict=True
        )
        for place, (row, ids, attended, completion) in enumerate(halves):
            example = self.examples[row]
            response = example.chosen_ids if place < len(self.batch) else example.rejected_ids
            real, answer = attended.bool(), completion.bool()
            if ids[answer].tolist() != response or ids[real & ~answer].tolist() != example.prompt_ids:
                raise ActiveDPOError(f"training got other tokens than were stored for pair `{example.pair_id}`")
        self.seen.update(self.batch)

    def expected_loss(
        self, inputs: Mapping[str, Tensor], passes: Sequence[Tensor], tokens: float | None
    ) -> ExpectedLoss | None:
        """The loss that `train.loss_type` names, by a pass of the policy, and one of π_ref or what that said before."""
        known = self.known_reference(torch.tensor(self.batch))
        if len(passes) != (2 if known is None else 1):
            return None
        counted = next_tokens(inputs["completion_mask"], passes)
        reference = sums_of_logps(passes[1], counted) if known is None else known.to(passes[0].device)
        if known is None and self.asks_once:
            self.format_of_logps = passes[1].dtype
            halves = (half.tolist() for half in reference.chunk(2))
            said = dict(zip(self.batch, zip(*halves, strict=True), strict=True))
            self.reference |= said
            self.news |= said
        return expected_preference_loss(passes[0], reference, counted, self.settings)

    def known_reference(self, rows: Tensor) -> Float[Tensor, " responses"] | None:
        """Log π_ref of the chosen responses of these rows, then of the rejected; None where a pass has to say so first."""
        known = [self.reference.get(row) for row in rows.tolist()]
        pairs = [pair for pair in known if pair is not None]
        return torch.tensor(pairs, dtype=torch.float64).T.flatten() if len(pairs) == len(known) else None

    def forget(self, rows: Sequence[int]) -> None:
        """Ask π_ref about these rows again, in the batch in which the policy is asked now."""
        for row in rows:
            self.reference.pop(row, None)
            self.news.pop(row, None)

    def take_news(self) -> Mapping[int, tuple[float, float]]:
        """What π_ref said of the pairs that this process was the first to ask about."""
        news, self.news = self.news, {}
        return news

    def hear(self, news: Mapping[int, tuple[float, float]]) -> None:
        """Take note of what π_ref said to another process."""
        self.reference |= news

    def check_loss(
        self, loss: Tensor, inputs: Mapping[str, Tensor], passes: Sequence[Tensor], tokens: float | None = None
    ) -> None:
        """Also stop at a first step whose rewards are not 0 though the policy is its reference."""
        super().check_loss(loss, inputs, passes, tokens)
        if not (self.untrained and self.step == 1 and len(passes) == 2):
            return
        logps, ref_logps = (
            part.double().where(next_tokens(inputs["completion_mask"], passes), 0) for part in (passes[0], passes[1])
        )
        ratios = (logps - ref_logps).sum(dim=1).abs()
        if (ratios > self.share_of_rounding * (1 + ref_logps.square().sum(dim=1).sqrt())).any():
            reward = self.settings.beta * ratios.max().item()
            raise self._stopped(
                f"a policy that is its reference has a reward of {reward:.2g} either way, and not of 0",
                "this model computes something at random in training, or otherwise than elsewhere, so nothing was learnt "
                "from it; `activedpo doctor --model MODEL` looks at a model",
            )

    def tokens(self, rows: set[int]) -> int:
        """Response tokens (chosen and rejected) of these rows."""
        return sum(len(self.examples[row].chosen_ids) + len(self.examples[row].rejected_ids) for row in rows)


def check_examples(examples: Sequence[DPOExample]) -> None:
    """Raise InvalidDataError for preferences that cannot be trained on."""
    if not examples:
        raise InvalidDataError("there are no preferences to train on")
    for example in examples:
        if not (example.prompt_ids and example.chosen_ids and example.rejected_ids):
            raise InvalidDataError(f"pair `{example.pair_id}` has an empty prompt or response")
        if example.chosen_ids == example.rejected_ids:
            raise InvalidDataError(f"pair `{example.pair_id}` prefers a response to itself")


def is_reference(policy: torch.nn.Module) -> bool:
    """Whether every B is zero, so that the policy is the base."""
    bs = [parameter for name, parameter in policy.named_parameters() if "lora_B" in name]
    return bool(bs) and not any(b.any() for b in bs)


def trainable_parameters(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters that training will change; raises when there is none."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ActiveDPOError("the policy has no trainable parameter: its adapter was attached frozen")
    return parameters
