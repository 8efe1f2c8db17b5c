"""`SharedUpdates`: lets several processes make one update together, which is that of one process but for rounding.

Each works on its portions of the batch; torch takes the mean of the gradients, and what is logged is added up here.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Dataset

from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.train.division import Division, Portion
from activedpo_cli.train.sft_examples import IGNORED
from activedpo_cli.train.training_audit import BatchAudit

PORTION = "portion"
"""The name, in a batch, of what it is a portion of."""
TOTALS = "num_tokens"
"""The one thing logged that is a total and no mean."""


class PortionSampler:
    """Yields the rows of one process, portion after portion, in the order in which one process alone would see them."""

    def __init__(self, rows: Dataset, seed: int, division: Division, index: int) -> None:
        self._order = SeedableRandomSampler(rows, data_seed=seed)
        self._count = division.steps(len(rows))  # type: ignore[arg-type]
        self._division, self._index = division, index
        self.handed_out: deque[Portion] = deque()
        self.batch_sampler = self  # where transformers looks for `set_epoch`

    def set_epoch(self, epoch: int) -> None:
        """Go on with the order of that epoch."""
        self._order.set_epoch(epoch)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        for portion in self._division.portions(list(self._order), self._index):
            self.handed_out.append(portion)
            yield list(portion.rows)


class SharedUpdates:
    """A layer over one of TRL's trainers, beneath its audit.

    Attributes:
        division: How updates are divided; None for a process alone, which trains as though this layer were not there.

    """

    audit: BatchAudit
    division: Division | None = None
    _done: list[Portion]

    def share_updates(self, division: Division | None, seed: int) -> None:
        """Divide updates so from now on; adapters' dropout, which draws from torch's state, is each process's own."""
        if division is not None:
            self.division, self.may_halve = division, False
            torch.manual_seed(derive_seed(seed, "process", self.args.process_index))  # type: ignore[attr-defined]

    def get_train_dataloader(self) -> Any:
        """The batches of this process."""
        if self.division is None:
            return super().get_train_dataloader()  # type: ignore[misc]
        own: Any = self
        self._done = []
        self._sampler = PortionSampler(own.train_dataset, own.args.data_seed, self.division, own.args.process_index)
        return DataLoader(own.train_dataset, batch_sampler=self._sampler, collate_fn=own.data_collator)  # type: ignore[arg-type]

    def get_batch_samples(self, epoch_iterator: Any, *args: Any) -> Any:
        """The batches of one update, each with the portion that it is."""
        if self.division is not None:
            epoch_iterator = map(self._marked, epoch_iterator)
        return super().get_batch_samples(epoch_iterator, *args)  # type: ignore[misc]

    def _marked(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows, portion = tuple(batch["row"].tolist()), self._sampler.handed_out.popleft()
        while portion.rows != rows:  # those before a checkpoint, which are passed over
            portion = self._sampler.handed_out.popleft()
        if (
            not portion.weight and "labels" in batch
        ):  # else its tokens would count in the number that losses are divided by
            batch["labels"] = torch.full_like(batch["labels"], IGNORED)
        return batch | {PORTION: portion}

    @contextmanager
    def at_work_on(self, portion: Portion | None) -> Iterator[None]:
        """While a loss is computed: numbers to be logged are this process's own, which may have other rows than the next."""
        if portion is None:
            yield
            return
        own: Any = self
        tokens = own._total_train_tokens
        names = ("gather", "gather_for_metrics")
        vars(own.accelerator).update({name: lambda value: value for name in names})
        try:
            yield
        finally:
            for name in names:
                del vars(own.accelerator)[name]
        if not portion.weight:
            own._total_train_tokens = tokens
        self._done.append(portion)

    def log(self, logs: dict[str, float], *args: Any) -> None:
        """Log an update as all processes have made it, which here tell each other also what π_ref said."""
        metrics: dict[str, list[float]] = self._metrics["train"]  # type: ignore[attr-defined]
        if self.division is not None and metrics:
            own = {
                name: float(self._total_train_tokens)  # type: ignore[attr-defined]
                if name == TOTALS
                else sum(portion.weight * value for portion, value in zip(self._done, values, strict=True))
                for name, values in metrics.items()
            }
            told = gather_object([(own, self.audit.take_news())])
            for name in metrics:
                metrics[name] = [sum(numbers[name] for numbers, _ in told)]
            for _, news in told:
                self.audit.hear(news)
            self._done.clear()
        super().log(logs, *args)  # type: ignore[misc]
