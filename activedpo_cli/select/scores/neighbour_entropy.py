"""How thinly points lie: the entropy of their distribution by nearest neighbours, less where labels already are."""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Bool, Float, Int

OFFSET = 1e-4
"""Keeps the logarithm of a distance of zero finite, as the published code does."""
AT_ONCE = 1024


def standardised_columns(
    points: Float[Tensor, "points dim"], others: Float[Tensor, "others dim"]
) -> tuple[Float[Tensor, "points dim"], Float[Tensor, "others dim"]]:
    """Each column of `points` with mean 0 and standard deviation 1, `others` moved and scaled alike; constant ones are 0."""
    mean = points.mean(dim=0)
    deviation = (points - mean).square().mean(dim=0).sqrt()
    varies = deviation > 1e-12 * points.abs().amax(dim=0)
    scale = torch.where(varies, deviation, torch.inf)
    return (points - mean) / scale, (others - mean) / scale


def neighbour_distances(points: Float[Tensor, "points dim"], neighbours: int) -> Float[Tensor, " points"]:
    """D_k: the distance of each point to its k-th nearest other one; to the farthest where there are fewer, 0 where none."""
    rank = min(neighbours, len(points) - 1)
    if rank < 1:
        return points.new_zeros(len(points))
    found = []
    for start in range(0, len(points), AT_ONCE):
        distances = exact_distances(points[start : start + AT_ONCE], points)
        distances[torch.arange(len(distances)), torch.arange(start, start + len(distances))] = -1  # itself comes first
        found.append(distances.kthvalue(rank + 1, dim=1).values)
    return torch.cat(found)


def exact_distances(
    points: Float[Tensor, "points dim"], others: Float[Tensor, "others dim"]
) -> Float[Tensor, "points others"]:
    """Euclidean distances, zero for equal points, which the quicker form by inner products does not give."""
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def within(
    distances: Float[Tensor, "points labels"], radius: Float[Tensor, " points"]
) -> Bool[Tensor, "points labels"]:
    """Which labels lie inside the neighbourhood of each point, its edge included."""
    return distances <= radius[:, None]


def neighbour_entropy(
    radius: Float[Tensor, " points"], labels_within: Int[Tensor, " points"], dim: int
) -> Float[Tensor, " points"]:
    """Ĥ = log(2 D_k + 1e-4) − ψ(n + 1)/dim with n labels within D_k, up to a constant; BAL-PM, arXiv 2406.10023."""
    return (2 * radius + OFFSET).log() - torch.digamma(labels_within.to(torch.float64) + 1) / dim
