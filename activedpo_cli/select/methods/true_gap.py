"""The pairs whose oracle scores differ most: a ceiling that reads the answers before it buys them, for experiments only.

It asks the oracle about every candidate, so it saves no label. What it gains over random is what knowing the score gaps can
gain; a criterion without the answers can be measured by how much of that it gets.

Source: none; the control of every experiment here. Score: |score of a − score of b|.
Cost: O(n) for n candidates, and an oracle's score for every response.
"""

from torch import Tensor

from activedpo_cli.base.settings import Section
from activedpo_cli.base.shapes import Float
from activedpo_cli.select.methods.base import Candidates, best_by

NEEDS: tuple[str, ...] = ("scores",)


class Settings(Section):
    """There is nothing to set."""


def scores(candidates: Candidates, settings: Settings) -> Float[Tensor, " pairs"]:
    """How far the oracle's scores of both responses are apart."""
    found = candidates.column("scores").double()
    return (found[candidates.row_a] - found[candidates.row_b]).abs()


choose = best_by(scores)
