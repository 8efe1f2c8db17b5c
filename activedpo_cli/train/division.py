"""How the rows of an update are divided among processes, so that it stays the update of one process but for rounding.

The trainer's own way repeats rows where a batch can't be divided, and counts each as much as any other: the last update of
an epoch would be another one.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from activedpo_cli.base.errors import UsageError

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Portion:
    """What one process does at once.

    Attributes:
        rows: Places of the rows in the dataset.
        share: By what their mean loss is multiplied, before the trainer takes the mean over portions and processes; 0 where
            they are other processes' rows, worked on to keep step with these.
        weight: How much of the update's mean loss they make up; over all processes it comes to 1.

    """

    rows: tuple[int, ...]
    share: float
    weight: float


@dataclass(frozen=True)
class Division:
    """The batches of one process among several.

    Attributes:
        processes: How many there are.
        batch: Rows that one of them works on at once.
        accumulation: How often it does so for an update.
        whole_batch: Rows that a process alone works on at once.
        whole_accumulation: How often that does so for an update.

    """

    processes: int
    batch: int
    accumulation: int
    whole_batch: int
    whole_accumulation: int

    def portions(self, order: Sequence[int], index: int) -> Iterator[Portion]:
        """What the process of that number does in an epoch with the rows in this order, update after update."""
        batches = _pieces(order, self.whole_batch)
        for update in _pieces(batches, self.whole_accumulation):
            yield from self._of_update(update, index)

    def steps(self, rows: int) -> int:
        """How many portions an epoch with so many rows has, the same number for each process."""
        return sum(1 for _ in self.portions(range(rows), 0))

    def _of_update(self, batches: Sequence[Sequence[int]], index: int) -> Iterator[Portion]:
        pieces = [
            (piece, len(piece) / len(batch) / len(batches)) for batch in batches for piece in _pieces(batch, self.batch)
        ]
        turns = math.ceil(len(pieces) / self.processes)
        for turn in range(turns):
            place = turn * self.processes + index
            rows, weight = pieces[place] if place < len(pieces) else (pieces[0][0], 0.0)
            yield Portion(tuple(rows), weight * turns * self.processes, weight)


def divided(batch: int, accumulation: int, processes: int) -> Division:
    """The division of `batch` × `accumulation` rows; first fewer turns for each process, then fewer rows at once.

    Raises UsageError, with the numbers of processes that would do, where an update's rows can't be divided evenly.
    """
    fewer_turns = math.gcd(accumulation, processes)
    fewer_rows = processes // fewer_turns
    if batch % fewer_rows:
        rows = batch * accumulation
        would_do = [str(number) for number in range(2, rows + 1) if rows % number == 0]
        raise UsageError(
            f"an update is made of {rows} rows ({batch} at once, {accumulation} times), which {processes} processes can't "
            "share evenly",
            details=["with another number of rows in an update, training would be another one"],
            hint=f"--num-processes {' or '.join(would_do[:8])}" if would_do else "leave --num-processes out",
        )
    return Division(processes, batch // fewer_rows, accumulation // fewer_turns, batch, accumulation)


def _pieces(things: Sequence[Thing], size: int) -> list[Sequence[Thing]]:
    return [things[start : start + size] for start in range(0, len(things), size)]
