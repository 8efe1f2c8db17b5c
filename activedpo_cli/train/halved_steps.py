"""`HalvingTrainer`: does a training step in parts when memory runs out; their gradients add up to the whole's.

The updates are the same beyond rounding, and beyond the adapter's dropout, which is drawn anew for every part.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel

from activedpo_cli.base.out_of_memory import is_out_of_memory
from activedpo_cli.train.training_audit import BatchAudit


class HalvingTrainer:
    """A layer over one of TRL's trainers, beneath its audit.

    Attributes:
        rows_that_fit: How many rows of a batch are worked on at once since memory ran out; None while it did not.
        share: The part of the batch that is being worked on, by which its mean loss counts.

    """

    audit: BatchAudit
    rows_that_fit: int | None = None
    share = 1.0
    can_undo = True

    def share_of(self, part: dict[str, Any], whole: dict[str, Any], num_items_in_batch: Any) -> float:
        """How much the loss of a part counts in that of the whole: for a mean over rows, the part's share of the rows."""
        return len(part["row"]) / len(whole["row"])

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """Forward and backward pass of the batch, whole or in parts that fit; returns the loss of all."""
        count = len(inputs["row"])
        while True:
            size = min(count, self.rows_that_fit or count)
            try:
                with self._undone_on_failure(model):
                    return self._in_parts(model, inputs, num_items_in_batch, size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1 or not self.can_undo:
                    raise self.audit.too_large() from error
            self.audit.forget(inputs["row"].tolist())
            self.rows_that_fit = size // 2
            if torch.cuda.is_available():  # after the handler, whose traceback keeps the failed attempt's tensors
                torch.cuda.empty_cache()

    def _in_parts(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any, size: int) -> Any:
        count = len(inputs["row"])
        metrics: dict[str, list[Any]] = self._metrics["train"]  # type: ignore[attr-defined]
        before = {name: len(values) for name, values in metrics.items()}
        losses, shares = [], []
        for start in range(0, count, size):
            part = inputs if size == count else _part(inputs, range(start, min(start + size, count)))
            self.share = 1.0 if part is inputs else self.share_of(part, inputs, num_items_in_batch)
            shares.append(self.share)
            losses.append(super().training_step(model, part, num_items_in_batch))  # type: ignore[misc]
        self.share = 1.0
        _as_one_entry(metrics, before, shares)
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    @contextmanager
    def _undone_on_failure(self, model: Any) -> Iterator[None]:
        """Leave gradients and metrics as they were where a batch fails on its way."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        is_small = isinstance(model, PeftModel)  # a copy of all gradients of a full model would not fit either
        self.can_undo = is_small or all(parameter.grad is None for parameter in parameters)
        before = [p.grad.clone() if is_small and p.grad is not None else None for p in parameters]
        metrics: dict[str, list[Any]] = self._metrics["train"]  # type: ignore[attr-defined]
        tokens: int = vars(self)["_total_train_tokens"]
        lengths = {name: len(values) for name, values in metrics.items()}
        try:
            yield
        except BaseException:
            for parameter, gradient in zip(parameters, before, strict=True):
                parameter.grad = gradient
            self._total_train_tokens = tokens
            for name, values in metrics.items():
                del values[lengths.get(name, 0) :]
            raise


def _as_one_entry(metrics: dict[str, list[Any]], before: dict[str, int], shares: Sequence[float]) -> None:
    """Make the entries that a batch's parts have added one of each, weighted as their losses are."""
    for name, values in metrics.items():
        added = values[before.get(name, 0) :]
        if len(added) == len(shares) > 1:
            total = sum(share * value for share, value in zip(shares, added, strict=True))
            values[before.get(name, 0) :] = [total / sum(shares)]


def _part(inputs: dict[str, Any], places: Sequence[int]) -> dict[str, Any]:
    """Some rows of a batch; a tensor of twice as many rows holds the chosen ones first, then the rejected."""
    count, wanted = len(inputs["row"]), torch.tensor(list(places))
    both = torch.cat([wanted, wanted + count])
    return {
        name: value[(wanted if len(value) == count else both).to(value.device)] if torch.is_tensor(value) else value
        for name, value in inputs.items()
    }
