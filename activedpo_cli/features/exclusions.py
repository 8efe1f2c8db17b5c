"""Responses that are left out because their gradient is not finite: named, counted, and too many stop the stage."""

from collections.abc import Sequence

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.records import ExcludedResponse

TOLERATED_SHARE = 0.01


class Exclusions:
    """Collects what is left out of `total` responses."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.rows: list[ExcludedResponse] = []
        self._progress = progress
        self._total = total

    def add(self, rows: Sequence[ExcludedResponse]) -> None:
        """Note further responses; raises InvalidDataError once they are more than one in a hundred."""
        for row in rows:
            self._progress.warn(f"`{row.response_id}` is left out: its {', '.join(row.columns)} are not finite")
        self.rows += rows
        if len(self.rows) > TOLERATED_SHARE * self._total:
            raise InvalidDataError(
                f"{len(self.rows)} of {self._total} responses are not finite, more than {TOLERATED_SHARE:.0%}",
                details=[f"{row.response_id}: {', '.join(row.columns)}" for row in self.rows[:5]],
                hint="after an iteration of training the policy has probably diverged: look at `rewards/margins` and "
                "`grad_norm` in metrics.jsonl of train, and train with a smaller --learning-rate; before any, try "
                "`--dtype float32` in a new run",
            )
