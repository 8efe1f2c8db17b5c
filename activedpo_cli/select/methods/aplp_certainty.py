"""The pairs of whose order the policy is most certain, the second half of `aplp` alone.

Δr̂ = β (log π/π_ref of a − log π/π_ref of b) is the margin of the implicit reward. At t = 1 the policy is π_ref, all margins
are zero and the choice is random. `small-margin` is the opposite choice.

Source: Muldrew et al., arXiv 2402.08114, its certainty score; probably what arXiv 2505.19241 calls APLP (its A.4).
Score: |Δr̂| in nats, largest first. Cost: O(n log n) for n candidates.
"""

from torch import Tensor

from activedpo_cli.base.settings import Section
from activedpo_cli.base.shapes import Float
from activedpo_cli.select.methods.base import Candidates, best_by

NEEDS: tuple[str, ...] = ("logps", "ref_logps")


class Settings(Section):
    """There is nothing to set."""


def scores(candidates: Candidates, settings: Settings) -> Float[Tensor, " pairs"]:
    """|Δr̂| of each pair, in nats."""
    return candidates.margins().abs()


choose = best_by(scores)
