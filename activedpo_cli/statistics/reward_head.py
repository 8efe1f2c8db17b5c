"""A linear Bradley–Terry reward on fixed features with what is not known about it: a Gaussian posterior (Laplace)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.statistics.bradley_terry import fit_bradley_terry, preference_variance
from activedpo_cli.statistics.span import span_basis


@dataclass(frozen=True)
class PredictedGaps:
    """For each pair the reward difference that the head expects, and the standard deviation of what it may be."""

    mean: Float[Tensor, " pairs"]
    deviation: Float[Tensor, " pairs"]

    def expected_size(self) -> Float[Tensor, " pairs"]:
        """E|gap| of a Gaussian: σ √(2/π) exp(−m²/2σ²) + m erf(m / σ√2); without labels proportional to ‖z‖."""
        deviation = self.deviation.clamp(min=torch.finfo(self.deviation.dtype).tiny)
        ratio = self.mean / deviation
        spread = deviation * math.sqrt(2 / math.pi) * torch.exp(-(ratio**2) / 2)
        return spread + self.mean * torch.erf(ratio / math.sqrt(2))


def predicted_gaps(
    differences: Float[Tensor, "pairs width"],
    labelled: Float[Tensor, "labelled width"],
    preferred: Int[Tensor, " labelled"],
    l2: float,
) -> PredictedGaps:
    """The gaps of pairs by the head that the labels give, with prior N(0, I/l2) for its weights.

    Both are divided by the root mean square norm of `differences`, so that before any label a typical pair's gap has
    variance 1/l2. The posterior covariance is H⁻¹ with H = l2 I + Σ σ′(z·w) zzᵀ over the labelled pairs.
    """
    scale = float(differences.double().square().sum(dim=1).mean().sqrt()) or 1.0
    pairs, known = differences.double() / scale, labelled.double() / scale
    weights = fit_bradley_terry(known, preferred, l2)
    # In an orthonormal basis of the labelled pairs' span H is small; across it the prior stands.
    basis = span_basis(known)
    inside, coordinates = pairs @ basis, known @ basis
    hessian = (coordinates.T * preference_variance(known @ weights)) @ coordinates
    hessian.diagonal().add_(l2)
    solved = torch.linalg.solve(hessian, inside.T).T
    across = (pairs.square().sum(dim=1) - inside.square().sum(dim=1)).clamp(min=0) / l2
    variance = (inside * solved).sum(dim=1) + across
    return PredictedGaps(mean=pairs @ weights, deviation=variance.clamp(min=0).sqrt())
