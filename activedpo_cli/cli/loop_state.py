"""What is known about a loop while it runs: which stages are done and how long they took, and what that says of the rest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from activedpo_cli.store.run import SFT, STAGES

StageKey = tuple[int, str]
"""Iteration and stage."""


@dataclass(frozen=True)
class Work:
    """A piece of work that is being counted; `first` of `total` were there before it began."""

    label: str
    total: int
    unit: str
    first: int
    done: int
    began: float

    def rate(self, now: float) -> float | None:
        """Things done in a second; None before there is anything to tell it from."""
        made, seconds = self.done - self.first, now - self.began
        return made / seconds if made > 0 and seconds > 0 else None

    def seconds_left(self, now: float) -> float | None:
        """Until all are done at the rate so far."""
        rate = self.rate(now)
        return None if rate is None else max(self.total - self.done, 0) / rate


@dataclass(frozen=True)
class LoopState:
    """One moment of a loop. All times are of one clock, in seconds.

    Args:
        seconds: How long each finished stage took.
        resumed: Finished stages whose seconds tell of their last attempt only.
        iteration: The one being worked on.
        running: The stage being worked on; None between two.

    """

    name: str
    model: str
    method: str
    iterations: int
    began: float
    seconds: Mapping[StageKey, float] = field(default_factory=dict)
    resumed: frozenset[StageKey] = frozenset()
    iteration: int = 1
    running: str | None = None
    stage_began: float = 0.0
    work: Work | None = None
    evaluations: tuple[Mapping[str, Any], ...] = ()

    @property
    def has_sft(self) -> bool:
        """Whether *sft* comes, or came, before iteration 1."""
        return self.running == SFT or (0, SFT) in self.seconds

    def seconds_left(self, now: float) -> float | None:
        """Until the whole loop is done, from stages of the same kinds; None where a kind to come was never finished."""
        left = 0.0
        if self.running == SFT:
            return None
        for iteration in range(1, self.iterations + 1):
            for name in STAGES:
                if (iteration, name) in self.seconds:
                    continue
                usual = self._usual_seconds(name)
                if usual is None:
                    return None
                is_running = (iteration, name) == (self.iteration, self.running)
                left += max(usual - (now - self.stage_began), 0) if is_running else usual
        return left

    def _usual_seconds(self, name: str) -> float | None:
        """The mean over iterations; not of the first, which also pays for imports and iteration 0, once there are others."""
        known = {key[0]: seconds for key, seconds in self.seconds.items() if key[1] == name and key not in self.resumed}
        later = [seconds for iteration, seconds in known.items() if iteration > 1]
        return mean(later or known.values()) if known else None


def duration(seconds: float) -> str:
    """`0.8 s`, `42 s`, `3:05`, `2:03:05` (hours, minutes, seconds)."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
