"""What λ and a batch do to V = λI + Σ φφᵀ: its condition, its effective dimension, and what it leaves of a pair."""

from dataclasses import dataclass

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float
from activedpo_cli.select.design.coverage import Coverage


@dataclass(frozen=True, kw_only=True)
class DesignDiagnostics:
    """V in two numbers.

    Attributes:
        condition: Largest eigenvalue of V divided by the smallest, which is λ as long as the pairs leave a direction
            free. Near 1 all scores are plain norms divided by √λ; a large one means that what was labelled counts.
        effective_dimension: tr(K(K + λI)⁻¹) with K the products of the pairs: about how many directions are known to
            better than λ. At most the number of pairs, and of features; 0 as λ grows.

    """

    condition: float
    effective_dimension: float


def design_diagnostics(pair_features: Float[Tensor, "pairs proj_dim"], ridge: float) -> DesignDiagnostics:
    """The two numbers for the pairs in V, labelled and picked, in float64 and without a matrix beyond the smaller side.

    Raises ValueError unless λ is positive and the features are finite.
    """
    _check(pair_features, ridge)
    features = pair_features.to(torch.float64)
    count, proj_dim = features.shape
    eigenvalues = features.new_zeros(proj_dim)
    if count and proj_dim:
        tall = features if count > proj_dim else features.T
        triangle = torch.linalg.qr(tall, mode="r").R  # faster than the singular values of all rows
        values = torch.linalg.svdvals(triangle).square()  # of V − λI; those of a product would lose the small ones
        eigenvalues[: len(values)] = values
    return DesignDiagnostics(
        condition=float((eigenvalues.max() + ridge) / (eigenvalues.min() + ridge)) if proj_dim else 1.0,
        effective_dimension=float((eigenvalues / (eigenvalues + ridge)).sum()),
    )


def uncertainty_given(
    pair_features: Float[Tensor, "pairs proj_dim"], covered: Float[Tensor, "covered proj_dim"], ridge: float
) -> Float[Tensor, " pairs"]:
    """‖φ‖ in V⁻¹ of some pairs where V holds the covered ones; Eq. (3) of arXiv 2505.19241 without a d × d matrix.

    Raises ValueError unless λ is positive and the features are finite.
    """
    _check(pair_features, ridge)
    _check(covered, ridge)
    features = pair_features.to(torch.float64)
    if not len(covered):
        return torch.linalg.vector_norm(features, dim=1) / ridge**0.5
    return (Coverage(covered.to(torch.float64), ridge, 0).left_of(features) / ridge).sqrt()


def _check(pair_features: Float[Tensor, "pairs proj_dim"], ridge: float) -> None:
    if not ridge > 0:
        raise ValueError(f"ridge must be positive, not {ridge}")
    if not pair_features.isfinite().all():
        raise ValueError("pair features are not finite")
