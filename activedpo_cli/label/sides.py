"""Which response a person sees first: shuffled, so that no position stands for a source."""

from activedpo_cli.base.records import Response
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.oracles.base import Comparison


def shown_sides(comparison: Comparison, annotator: str, seed: int) -> tuple[Response, Response]:
    """The two responses in the order in which `annotator` sees them; decided by pair, person and seed."""
    sides = (comparison.response_a, comparison.response_b)
    return sides if derive_seed(seed, "sides", annotator, comparison.pair_id) % 2 == 0 else sides[::-1]
