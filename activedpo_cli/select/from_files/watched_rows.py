"""Pairs that are read in passes, with a bar for each, and a count of all that is read."""

from typing import TYPE_CHECKING

from activedpo_cli.base.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from activedpo_cli.pairs.pair_features import Rows


class WatchedRows:
    """Pairs whose reading from the first to the last is shown as progress."""

    def __init__(self, pairs: "Rows", budget: int, picked: int, progress: Progress) -> None:
        self._pairs, self._budget, self._progress = pairs, budget, progress
        self.shape = pairs.shape
        self.passes = 0
        self.picked = picked
        self.pairs_read = 0
        """In passes and beside them, a pair as often as it was read."""
        self._is_shown = False

    def read(self, start: int, stop: int) -> "Tensor":
        """Consecutive pairs."""
        if start == 0:
            self.passes += 1
            label = f"pass {self.passes}, {self.picked} of {self._budget} picked"
            self._progress.start(label, self.shape[0], "pairs")
            self._is_shown = True
        features = self._pairs.read(start, stop)
        self.pairs_read += stop - start
        self._progress.advance(stop - start)
        if stop == self.shape[0]:
            self.end_pass()
        return features

    def take(self, rows: "Tensor") -> "Tensor":
        """Some pairs."""
        self.pairs_read += len(rows)
        return self._pairs.take(rows)

    def end_pass(self) -> None:
        """Take the bar away, if there is one."""
        if self._is_shown:
            self._is_shown = False
            self._progress.stop()
