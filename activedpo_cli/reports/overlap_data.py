"""What the batches of two runs have in common, wherever they were picked from the same candidates."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from activedpo_cli.reports.run_data import RunData
from activedpo_cli.reports.selection_data import Batch
from activedpo_cli.select.scores.overlap import chance_share, shared_share


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Two batches from the same candidates: the pairs in both, as a share of the smaller one, and the share by chance."""

    sources: tuple[str, str]
    runs: tuple[str, str]
    iteration: int
    candidates: int
    in_both: int
    share: float
    by_chance: float


def overlaps(runs: Sequence[RunData]) -> list[Overlap]:
    """Every two runs and every iteration in which they had the same pairs of the same texts to pick from."""
    return [
        _overlap(first.name, ours, second.name, theirs)
        for first, second in combinations(runs, 2)
        for ours in first.batches
        for theirs in second.batches
        if _is_comparable(ours, theirs)
    ]


def _overlap(first: str, ours: Batch, second: str, theirs: Batch) -> Overlap:
    a, b = frozenset(ours.picked), frozenset(theirs.picked)
    return Overlap(
        sources=(f"{first}/{ours.source}", f"{second}/{theirs.source}"),
        runs=(first, second),
        iteration=ours.iteration,
        candidates=ours.candidates,
        in_both=len(a & b),
        share=shared_share(a, b),
        by_chance=chance_share(len(a), len(b), ours.candidates),
    )


def _is_comparable(a: Batch, b: Batch) -> bool:
    is_same_pool = a.candidates_digest is not None and a.candidates_digest == b.candidates_digest
    return a.iteration == b.iteration and is_same_pool
