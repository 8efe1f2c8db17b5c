"""The design matrix and a pair's uncertainty in the paper's own d × d form.

Exact and slow: the truth that `greedy.py` is tested against, not what runs.
"""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float


def design_matrix(
    pair_features: Float[Tensor, "labelled proj_dim"], ridge: float
) -> Float[Tensor, "proj_dim proj_dim"]:
    """V = λI + Σ φφᵀ over labelled pairs: what the labels bought so far have covered.

    Eq. (4) of arXiv 2505.19241, with the transpose that is missing there. Raises ValueError unless λ is positive.
    """
    if not ridge > 0:
        raise ValueError(f"ridge must be positive, not {ridge}")
    identity = torch.eye(pair_features.shape[1], dtype=pair_features.dtype, device=pair_features.device)
    return ridge * identity + pair_features.T @ pair_features


def pair_uncertainty(
    pair_features: Float[Tensor, "pairs proj_dim"], design_inverse: Float[Tensor, "proj_dim proj_dim"]
) -> Float[Tensor, " pairs"]:
    """How little the labels bought so far say about each pair: ‖φ‖ in V⁻¹.

    Eq. (3) of arXiv 2505.19241.
    """
    squared = ((pair_features @ design_inverse) * pair_features).sum(dim=1)
    return squared.clamp_min(0).sqrt()  # rounding can leave a tiny negative
