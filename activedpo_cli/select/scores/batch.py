"""Measures of a batch of pairs: its effective rank, and |cos| between its pairs."""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float
from activedpo_cli.pairs.pair_features import unit_rows


def effective_rank(pair_features: Float[Tensor, "pairs proj_dim"]) -> float:
    """How many directions the pairs cover evenly: e^H(p), p being the eigenvalues of Σ φφᵀ divided by their sum.

    H is the entropy. Orthogonal pairs of equal norm give their number, copies of one pair give 1, no pairs or pairs of
    zeros 0. It never exceeds the rank. After Roy and Vetterli 2007, who take singular values where this takes their
    squares. Raises ValueError for features that are not finite.
    """
    features = pair_features.to(torch.float64)  # squares of any float32 stay within its range
    is_wide = features.shape[0] <= features.shape[1]
    gram = features @ features.T if is_wide else features.T @ features  # both have the non-zero eigenvalues of Σ φφᵀ
    if not gram.isfinite().all():
        raise ValueError("pair features are not finite")
    if not gram.diagonal().any():
        return 0.0
    eigenvalues = torch.linalg.eigvalsh(gram).clamp_min(0)
    shares = eigenvalues / eigenvalues.sum()
    return float(torch.special.entr(shares).sum().exp())


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
