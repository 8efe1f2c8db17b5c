"""Features of any number of responses: packed into batches, in memory as far as it goes, back in their order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from activedpo_cli.gradients.batch import GradientBatch, ResponseBatch, pad_responses
from activedpo_cli.gradients.checkpointing import checkpointed_layers
from activedpo_cli.gradients.forward_columns import ForwardBatch, forward_columns
from activedpo_cli.gradients.memory import in_halves
from activedpo_cli.gradients.packing import packed
from activedpo_cli.gradients.per_response import ExactNorms, response_gradients
from activedpo_cli.gradients.projections.base import Projection
from activedpo_cli.gradients.quality import ProjectionQuality, cosine_errors

Result = TypeVar("Result")
Row = tuple[Sequence[int], Sequence[int]]
"""The token ids of a prompt and of its response."""


@dataclass(frozen=True)
class Featurizer:
    """A policy with the way in which its responses are featurized.

    Where memory runs out a batch is worked on in halves, as often as need be. Features do not depend on a response's
    neighbours beyond rounding, so the result is the same. What does not fit alone raises TooLargeError with its place
    in the list.
    """

    model: nn.Module
    projection: Projection
    pad_token_id: int
    device: torch.device
    tokens_per_batch: int
    exact_norms: ExactNorms = "auto"
    gradient_checkpointing: bool = False
    alone: frozenset[str] = frozenset()
    """Matrices whose gradients a batch does not show apart, so that each response has a pass of its own."""

    def gradients(self, rows: Sequence[Row]) -> GradientBatch:
        """Features, norms and log-probabilities of each row, in order, on the CPU."""
        with checkpointed_layers(self.model, enabled=self.gradient_checkpointing):
            batches, order = self._in_batches(
                rows,
                lambda batch: response_gradients(
                    self.model, batch, self.projection, exact_norms=self.exact_norms, alone=self.alone
                ),
            )
        norms = [batch.exact_norms for batch in batches]
        return GradientBatch(
            features=_ordered([batch.features for batch in batches], order),
            exact_norms=None if norms[0] is None else _ordered([n for n in norms if n is not None], order),
            logps=_ordered([batch.logps for batch in batches], order),
        )

    def forward(
        self, rows: Sequence[Row], *, logps: bool = False, hidden: bool = False, mean_hidden: bool = False
    ) -> ForwardBatch:
        """Log-probabilities and hidden states, those asked for by one pass; none needs a backward pass."""
        batches, order = self._in_batches(
            rows,
            lambda batch: forward_columns(self.model, batch, logps=logps, hidden=hidden, mean_hidden=mean_hidden),
        )

        def together(parts: list[Tensor | None]) -> Tensor | None:
            computed = [part for part in parts if part is not None]
            return _ordered(computed, order) if computed else None

        return ForwardBatch(
            logps=together([batch.logps for batch in batches]),
            hidden=together([batch.hidden for batch in batches]),
            mean_hidden=together([batch.mean_hidden for batch in batches]),
        )

    def quality(self, rows: Sequence[Row]) -> ProjectionQuality | None:
        """How well the projection keeps the angles between these rows' gradients, from pairs that share a batch.

        None where there is no such pair. A batch has room for two of the longest rows at least.
        """
        if len(rows) < 2:
            return None
        for_two = 2 * max(len(prompt) + len(response) for prompt, response in rows)
        with checkpointed_layers(self.model, enabled=self.gradient_checkpointing):
            errors, _ = replace(self, tokens_per_batch=max(for_two, self.tokens_per_batch))._in_batches(
                rows, lambda batch: cosine_errors(self.model, batch, self.projection, self.alone)
            )
        return ProjectionQuality.of(torch.cat(errors), self.projection.proj_dim)

    def _in_batches(
        self, rows: Sequence[Row], work: Callable[[ResponseBatch], Result]
    ) -> tuple[list[Result], list[int]]:
        """The results of all batches, and the row in which each of their examples came."""
        batches = packed([len(prompt) + len(response) for prompt, response in rows], self.tokens_per_batch)
        results = [
            result
            for batch in batches
            for result in in_halves(lambda part: work(self._padded([rows[index] for index in part])), batch)
        ]
        return results, [index for batch in batches for index in batch]

    def _padded(self, rows: Sequence[Row]) -> ResponseBatch:
        prompts, responses = zip(*rows, strict=True)
        return pad_responses(prompts, responses, self.pad_token_id, self.device)


def _ordered(parts: Sequence[Tensor], order: Sequence[int]) -> Tensor:
    """Rows put back: the first of `parts` belongs at `order[0]`."""
    together = torch.cat([part.cpu() for part in parts])
    result = torch.empty_like(together)
    result[torch.tensor(order)] = together
    return result
