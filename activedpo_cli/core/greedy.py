"""Greedy choice of the most uncertain pairs without ever forming V: a pivoted Cholesky decomposition.

With P = I − WᵀW the projection-like part of V⁻¹ = P / λ, a pair's residual φᵀPφ is λ times its squared uncertainty.
Taking a pair appends one row to W and lowers every residual, at O(pairs · proj_dim) a pick.
"""

import math

import torch
from torch import Tensor

from activedpo_cli.shapes import Bool, Float, Int

TIE_TOLERANCE = 1e-9
"""Residuals this close to the largest, relatively, count as tied."""

ROUNDING = 1e-13
"""Error of a residual that rounding can cause, relative to ‖φ‖²."""


def greedy_uncertainty(
    pair_features: Float[Tensor, "pairs proj_dim"],
    labelled_pair_features: Float[Tensor, "labelled proj_dim"],
    ridge: float,
    budget: int,
    priority: Int[Tensor, " pairs"],
    groups: Int[Tensor, " pairs"] | None = None,
    max_per_group: int | None = None,
) -> tuple[Int[Tensor, " chosen"], Float[Tensor, " chosen"]]:
    """Pick `budget` pairs, each the argmax of ‖φ‖ in V⁻¹, where V grows by every pick.

    Lines 5–9 of algorithm 1 with Eqs. (3) and (4), arXiv 2505.19241. V starts as λI + Σ φφᵀ over the labelled pairs.
    Arithmetic is float64 whatever the input.

    Args:
        ridge: λ > 0. Below about 1e-10 of the features' squared norm, rounding blurs the scores.
        priority: A permutation; of tied pairs the one with the smallest value is taken.
        groups: Pairs of one prompt share a value; needed with `max_per_group`.
        max_per_group: Most pairs taken of one group.

    Returns:
        The rows picked, in order, and the uncertainty ‖φ‖ in V⁻¹ of each at the moment it was picked.

    Raises:
        ValueError: λ is not positive, the features are not finite, or fewer than `budget` pairs can be taken.

    """
    if not ridge > 0:
        raise ValueError(f"ridge must be positive, not {ridge}")
    features = pair_features.to(torch.float64)
    labelled = labelled_pair_features.to(features)
    if not (_is_finite(features) and _is_finite(labelled)):
        raise ValueError("pair features are not finite")
    directions, taken = _history_directions(labelled, ridge, budget), len(labelled)
    squared_norms = torch.linalg.vector_norm(features, dim=1).square()
    residuals = squared_norms - torch.linalg.vector_norm(features @ directions[:taken].T, dim=1).square()
    priority = priority.to(features.device)
    is_open = torch.ones_like(priority, dtype=torch.bool)
    rows, scores = [], []
    for _ in range(budget):
        residuals.clamp_min_(0)
        row = _first_of_the_largest(residuals, ROUNDING * squared_norms, is_open, priority)
        rows.append(row)
        scores.append(math.sqrt(float(residuals[row]) / ridge))
        if residuals[row] + ridge > ROUNDING * squared_norms[row]:  # else the new direction would be pure noise
            direction = features[row] - directions[:taken].T @ (directions[:taken] @ features[row])
            directions[taken] = direction / (residuals[row] + ridge).sqrt()
            residuals -= (features @ directions[taken]).square()
            taken += 1
        is_open[row] = False
        if groups is not None and max_per_group is not None:
            _close_groups(is_open, row, rows, groups, max_per_group)
    return torch.tensor(rows, dtype=torch.int64), torch.tensor(scores, dtype=torch.float64)


def _is_finite(features: Float[Tensor, "pairs proj_dim"]) -> bool:
    return bool(torch.linalg.vector_norm(features, dim=1).square().isfinite().all())


def _history_directions(
    labelled: Float[Tensor, "labelled proj_dim"], ridge: float, spare: int
) -> Float[Tensor, "labelled_and_spare proj_dim"]:
    """Rows W with V⁻¹ = (I − WᵀW) / λ for the labelled pairs, followed by `spare` rows of zeros."""
    count, proj_dim = labelled.shape
    directions = labelled.new_zeros(count + spare, proj_dim)
    if count:
        # Unlike Cholesky, eigenvalues survive repeated pairs under a tiny ridge.
        eigenvalues, eigenvectors = torch.linalg.eigh(labelled @ labelled.T)
        gains = eigenvalues + ridge
        scales = torch.where(gains > ROUNDING * eigenvalues[-1], gains.rsqrt(), 0)
        directions[:count] = scales[:, None] * (eigenvectors.T @ labelled)
    return directions


def _first_of_the_largest(
    residuals: Float[Tensor, " pairs"],
    rounding: Float[Tensor, " pairs"],
    is_open: Bool[Tensor, " pairs"],
    priority: Int[Tensor, " pairs"],
) -> int:
    if not is_open.any():
        raise ValueError("fewer pairs can be taken than the budget asks for")
    top = int(residuals.where(is_open, -1.0).argmax())
    threshold = residuals[top] * (1 - TIE_TOLERANCE) - rounding[top] - rounding
    is_tied = is_open & (residuals >= threshold)
    return int(priority.where(is_tied, len(priority)).argmin())


def _close_groups(
    is_open: Bool[Tensor, " pairs"], row: int, rows: list[int], groups: Int[Tensor, " pairs"], max_per_group: int
) -> None:
    """Mark the group of the row just taken as unavailable where it is full."""
    members = (groups == groups[row]).to(is_open.device)
    if int(members[rows].sum()) >= max_per_group:
        is_open[members] = False
