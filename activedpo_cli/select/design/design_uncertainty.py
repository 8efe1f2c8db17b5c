"""‖φ‖ in V⁻¹ of all pairs at once, for one V and without a matrix of d × d entries where few pairs are labelled."""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float
from activedpo_cli.statistics.bradley_terry import span_basis


def design_uncertainty(
    pair_features: Float[Tensor, "pairs proj_dim"],
    labelled_pair_features: Float[Tensor, "labelled proj_dim"],
    ridge: float,
) -> Float[Tensor, " pairs"]:
    """√(φᵀV⁻¹φ) of each pair with V = λI + Σ φφᵀ over the labelled pairs, in float64.

    In an orthonormal basis Q of what is labelled, V = Q RᵀR Qᵀ + λ (I − QQᵀ) with R from the QR decomposition of the
    labelled coordinates above √λ I; so φᵀV⁻¹φ = ‖R⁻ᵀQᵀφ‖² + ‖φ − QQᵀφ‖²/λ, in which nothing cancels however small λ is.
    Raises ValueError unless λ is positive and the features are finite.
    """
    if not ridge > 0:
        raise ValueError(f"ridge must be positive, not {ridge}")
    features = pair_features.to(torch.float64)
    labelled = labelled_pair_features.to(features)
    if not (features.isfinite().all() and labelled.isfinite().all()):
        raise ValueError("pair features are not finite")
    basis = span_basis(labelled)
    coordinates = features @ basis
    padding = ridge**0.5 * torch.eye(basis.shape[1], dtype=features.dtype, device=features.device)
    factor = torch.linalg.qr(torch.cat([labelled @ basis, padding])).R
    inside = torch.linalg.solve_triangular(factor.T, coordinates.T, upper=False)
    squared = torch.linalg.vector_norm(inside, dim=0).square()
    if basis.shape[1] < features.shape[1]:
        outside = torch.addmm(features, coordinates, basis.T, alpha=-1)
        squared += torch.linalg.vector_norm(outside, dim=1).square() / ridge
    return squared.sqrt()
