"""Examples of supervised fine-tuning as tokens, and what training really saw of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.gradients.batch import pad_responses
from activedpo_cli.gradients.logps import response_logps
from activedpo_cli.gradients.memory import TooLargeError, in_halves
from activedpo_cli.gradients.packing import packed
from activedpo_cli.train.expected_loss import ExpectedLoss, expected_likelihood_loss, next_tokens
from activedpo_cli.train.training_audit import BatchAudit

IGNORED = -100
"""The label of a token that the loss does not count."""


@dataclass(frozen=True, kw_only=True)
class SFTExample:
    """One example: its ids, of which the first `context_tokens` (at least 1) are read and not learnt.

    `origin` says where it stood, such as `examples.jsonl line 12`.
    """

    origin: str
    token_ids: Sequence[int]
    context_tokens: int

    @property
    def learnt_tokens(self) -> int:
        """How many tokens the loss counts."""
        return len(self.token_ids) - self.context_tokens

    @property
    def labels(self) -> list[int]:
        """The ids that are learnt, `IGNORED` in the places of the others."""
        return [IGNORED] * self.context_tokens + list(self.token_ids[self.context_tokens :])


class SFTAudit(BatchAudit):
    """Follows the batches of one training, so that no row is dropped, cut or counted otherwise unnoticed."""

    row, rows, loss = "", "examples", "loss"
    hint = "look at these rows; else try a smaller --learning-rate, or `--dtype float32`"

    def __init__(self, examples: Sequence[SFTExample]) -> None:
        super().__init__([example.origin for example in examples])
        self.examples = examples

    def check_batch(self, rows: Tensor, inputs: Mapping[str, Tensor]) -> None:
        """Take note of a batch; raise when its tokens, or those that count, are not those given."""
        self.batch = rows.tolist()
        batch = zip(self.batch, inputs["input_ids"], inputs["attention_mask"], inputs["labels"], strict=True)
        for row, ids, attended, labels in batch:
            example, real = self.examples[row], attended.bool()
            is_same = ids[real].tolist() == list(example.token_ids) and labels[real].tolist() == example.labels
            if not is_same or (labels[~real] != IGNORED).any():
                raise ActiveDPOError(f"training got other tokens than {example.origin} has")
        self.seen.update(self.batch)

    def expected_loss(
        self, inputs: Mapping[str, Tensor], passes: Sequence[Tensor], tokens: float | None
    ) -> ExpectedLoss | None:
        """The negative log-likelihood by the learnt token."""
        if len(passes) != 1:
            return None
        return expected_likelihood_loss(passes[0], next_tokens(inputs["labels"] != IGNORED, passes), tokens)

    def tokens(self) -> int:
        """Tokens that the loss counts, in one pass."""
        return sum(example.learnt_tokens for example in self.examples)


def held_out_losses(
    model: torch.nn.Module,
    examples: Sequence[SFTExample],
    pad_token_id: int,
    tokens_per_batch: int,
    on_done: Callable[[int], None],
) -> list[float]:
    """Negative log-likelihood of each example's learnt tokens, summed, in nats; `on_done` hears how many are done."""

    def logps(places: Sequence[int]) -> list[float]:
        rows = [examples[place] for place in places]
        contexts = [row.token_ids[: row.context_tokens] for row in rows]
        answers = [row.token_ids[row.context_tokens :] for row in rows]
        batch = pad_responses(contexts, answers, pad_token_id, next(model.parameters()).device)
        return response_logps(model, batch).tolist()

    losses = [0.0] * len(examples)
    for places in packed([len(example.token_ids) for example in examples], tokens_per_batch):
        try:
            found = [logp for part in in_halves(logps, places) for logp in part]
        except TooLargeError as error:
            example = examples[error.row]
            raise ActiveDPOError(
                f"memory does not suffice for the loss of {example.origin} alone, {len(example.token_ids)} tokens long",
                hint="a smaller --max-length in a new attempt, or a device with more memory",
            ) from error
        for place, logp in zip(places, found, strict=True):
            if not math.isfinite(logp):
                raise ActiveDPOError(
                    f"the loss of {examples[place].origin} is {-logp}",
                    hint="the training has diverged: begin it again with `--force` and a smaller --learning-rate",
                )
            losses[place] = -logp
        on_done(len(places))
    return losses
