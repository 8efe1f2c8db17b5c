"""Pairs that are read in passes, with a bar for each."""

from typing import TYPE_CHECKING

from activedpo_cli.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from activedpo_cli.core.pair_rows import DifferenceRows


class WatchedRows:
    """Pairs whose reading from the first to the last is shown as progress."""

    def __init__(self, pairs: "DifferenceRows", budget: int, picked: int, progress: Progress) -> None:
        self._pairs, self._budget, self._progress = pairs, budget, progress
        self.shape = pairs.shape
        self.passes = 0
        self.picked = picked

    def read(self, start: int, stop: int) -> "Tensor":
        """Consecutive pairs."""
        if start == 0:
            self.passes += 1
            label = f"pass {self.passes}, {self.picked} of {self._budget} picked"
            self._progress.start(label, self.shape[0], "pairs")
        features = self._pairs.read(start, stop)
        self._progress.advance(stop - start)
        if stop == self.shape[0]:
            self._progress.stop()
        return features

    def take(self, rows: "Tensor") -> "Tensor":
        """Some pairs."""
        return self._pairs.take(rows)
