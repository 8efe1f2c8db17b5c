"""Seeded random projections of LoRA gradients to a fixed dimension."""

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.nearest import asking, nearest
from activedpo_cli.gradients.projections.base import Projection
from activedpo_cli.gradients.projections.count_sketch import CountSketch
from activedpo_cli.gradients.projections.dense import Dense
from activedpo_cli.gradients.projections.factored import Factored

PROJECTIONS = ("factored", "count-sketch", "dense")


def make_projection(kind: str, proj_dim: int, seed: int, width: int = 1) -> Projection:
    """The projection called `kind` (`featurize.projection`); raises UsageError with the nearest name when unknown.

    `width` concerns `factored` alone.
    """
    match kind.replace("_", "-"):
        case "factored":
            return Factored(proj_dim, seed, width)
        case "count-sketch":
            return CountSketch(proj_dim, seed)
        case "dense":
            return Dense(proj_dim, seed)
    meant = nearest(kind, PROJECTIONS)
    raise UsageError(
        f"`{kind}` is not a projection" + asking(meant),
        details=[f"known: {', '.join(PROJECTIONS)}"],
        hint=f"--projection {meant or PROJECTIONS[0]}",
    )
