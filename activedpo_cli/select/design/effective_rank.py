"""How many directions a set of pairs covers."""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float


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
