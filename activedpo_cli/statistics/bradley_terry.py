"""A linear Bradley–Terry model of preferences: the probability that a is preferred is σ(φ·w).

`fit_heads` finds w; `predicted_gaps` also says how little is known about it, by a Gaussian posterior (Laplace).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from activedpo_cli.base.shapes import Float, Int

MOST_STEPS = 1000
"""Newton's method needs about ten where margins are moderate, and some hundreds where they are in the millions."""


def preference_variance(margins: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """σ′(m) = μ (1 − μ) with μ = σ(m): the variance of the answer, and the weight of its pair in the Fisher matrix."""
    return margins.sigmoid() * (-margins).sigmoid()


def fit_bradley_terry(
    pair_features: Float[Tensor, "labelled proj_dim"], preferred: Int[Tensor, " labelled"], l2: float
) -> Float[Tensor, " proj_dim"]:
    """The one head of `fit_heads` for which every pair counts once and w₀ is zero."""
    ones = torch.ones(1, len(pair_features), dtype=torch.float64)
    return fit_heads(pair_features, preferred, l2, ones, torch.zeros(1, pair_features.shape[1], dtype=torch.float64))[0]


def fit_heads(
    pair_features: Float[Tensor, "labelled proj_dim"],
    preferred: Int[Tensor, " labelled"],
    l2: float,
    counts: Float[Tensor, "heads labelled"],
    anchors: Float[Tensor, "heads proj_dim"],
) -> Float[Tensor, "heads proj_dim"]:
    """Each head's w minimises Σ c (softplus(m) − t m) + l2/2 ‖w − w₀‖² with m = φ·w: strictly convex, hence unique.

    w − w₀ lies in the span of the labelled φ, so that Newton's method works in min(labelled, d) dimensions. Arithmetic
    is float64.

    Args:
        pair_features: φ of the labelled pairs.
        preferred: +1 where a was preferred (t = 1), −1 for b (t = 0), 0 for neither (t = ½).
        l2: Precision of the prior, positive.
        counts: c, how often each pair counts.
        anchors: w₀, to which a head falls back where nothing is known.

    Raises:
        ValueError: l2 is not positive, or Newton's method does not settle.

    """
    if not l2 > 0:
        raise ValueError(f"l2 must be positive, not {l2}")
    features, starts = pair_features.to(torch.float64), anchors.to(pair_features.device, torch.float64)
    basis = span_basis(features)
    coordinates, offsets = features @ basis, starts @ features.T
    targets, weights = (preferred.to(features) + 1) / 2, counts.to(features)
    moved = [
        _newton(_Problem(coordinates, offset, targets, weight, l2))
        for offset, weight in zip(offsets, weights, strict=True)
    ]
    return starts + torch.stack(moved) @ basis.T


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
    # H is small in an orthonormal basis of the labelled pairs' span. Across that span the labels say nothing, so the
    # variance is that of the prior.
    basis = span_basis(known)
    inside, coordinates = pairs @ basis, known @ basis
    hessian = (coordinates.T * preference_variance(known @ weights)) @ coordinates
    hessian.diagonal().add_(l2)
    solved = torch.linalg.solve(hessian, inside.T).T
    across = (pairs.square().sum(dim=1) - inside.square().sum(dim=1)).clamp(min=0) / l2
    variance = (inside * solved).sum(dim=1) + across
    return PredictedGaps(mean=pairs @ weights, deviation=variance.clamp(min=0).sqrt())


def span_basis(rows: Float[Tensor, "rows proj_dim"]) -> Float[Tensor, "proj_dim rank"]:
    """Orthonormal columns whose span contains every row; min(rows, proj_dim) of them, none for no rows.

    Columns beyond the rank of the rows are arbitrary, which does no harm: all rows have the coordinate zero there.
    """
    return torch.linalg.qr(rows.T).Q


@dataclass(frozen=True)
class _Problem:
    """The loss of u with m = offsets + coordinates · u and l2/2 ‖u‖² as penalty, for `_newton`."""

    coordinates: Float[Tensor, "labelled rank"]
    offsets: Float[Tensor, " labelled"]
    targets: Float[Tensor, " labelled"]
    counts: Float[Tensor, " labelled"]
    l2: float

    def margins(self, u: Float[Tensor, " rank"]) -> Float[Tensor, " labelled"]:
        return self.offsets + self.coordinates @ u

    def loss(self, u: Float[Tensor, " rank"]) -> float:
        margins = self.margins(u)
        losses = -((1 - self.targets) * logsigmoid(-margins) + self.targets * logsigmoid(margins))
        return float(self.counts @ losses + self.l2 / 2 * u @ u)

    def step(self, u: Float[Tensor, " rank"]) -> Float[Tensor, " rank"]:
        """Inverse Hessian times gradient; residuals are written such that those of large margins keep their digits."""
        margins = self.margins(u)
        residuals = (1 - self.targets) * margins.sigmoid() - self.targets * (-margins).sigmoid()
        gradient = self.coordinates.T @ (self.counts * residuals) + self.l2 * u
        hessian = (self.coordinates.T * (self.counts * preference_variance(margins))) @ self.coordinates
        hessian.diagonal().add_(self.l2)
        return torch.linalg.solve(hessian, gradient)


def _newton(problem: _Problem) -> Float[Tensor, " rank"]:
    """The minimum; a step is halved as long as that lowers the loss, which is convex along it."""
    u = problem.coordinates.new_zeros(problem.coordinates.shape[1])
    largest = float(torch.linalg.vector_norm(problem.coordinates, dim=1).amax()) if len(problem.coordinates) else 0.0
    for _ in range(MOST_STEPS):
        step = problem.step(u)
        length = float(step.norm())
        if length <= 1e-10 * float(u.norm()) or length * largest <= 1e-12:
            return u - step
        loss = problem.loss(u - step)
        while (shorter := problem.loss(u - step / 2)) < loss - 1e-14 * abs(loss):
            step, loss = step / 2, shorter
        u = u - step
    raise ValueError(f"no Bradley–Terry fit within {MOST_STEPS} steps; features are too long for so small an l2")
