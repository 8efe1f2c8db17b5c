"""φ of pairs: the difference of their two responses' features."""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.pairs.normalisation import unit_rows


def difference_features(
    features: Float[Tensor, "responses proj_dim"],
    row_a: Int[Tensor, " pairs"],
    row_b: Int[Tensor, " pairs"],
    *,
    normalise: bool = False,
) -> Float[Tensor, "pairs proj_dim"]:
    """φ of pairs given as two rows each, in float64; for candidates and for pairs labelled earlier alike."""
    difference = features[row_a].to(torch.float64)
    difference -= features[row_b]
    return unit_rows(difference) if normalise else difference
