"""How alike pairs are, as directions."""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float
from activedpo_cli.pairs.pair_features import unit_rows


def absolute_cosines(pair_features: Float[Tensor, "pairs proj_dim"]) -> Float[Tensor, " couples"]:
    """|cos| of the angle between every two of the pairs' φ: n (n − 1) / 2 values between 0 and 1.

    The sign says only which response of a pair is called a, so it is left out: φφᵀ does not have it either. A pair of
    zeros is at right angles to all.
    """
    unit = unit_rows(pair_features)
    first, second = torch.triu_indices(len(unit), len(unit), offset=1)
    return (unit @ unit.T)[first, second].abs().clamp_max(1)


def absolute_cosines_to(
    pair_feature: Float[Tensor, " proj_dim"], pair_features: Float[Tensor, "pairs proj_dim"]
) -> Float[Tensor, " pairs"]:
    """|cos| of the angle between one pair's φ and each of some others, in float64; 0 for pairs of zeros."""
    unit = unit_rows(pair_features.to(torch.float64))
    return (unit @ unit_rows(pair_feature[None].to(torch.float64))[0]).abs().clamp_max(1)
