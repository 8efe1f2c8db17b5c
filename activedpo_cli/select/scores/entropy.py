"""Scores of uncertainty: a policy's entropy at a prompt, an ensemble's disagreement, how thinly prompts lie."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from activedpo_cli.base.shapes import Bool, Float, Int

ROUNDING = 1e-13
"""Information below this share of the answer's entropy is a rounding error, hence zero."""

OFFSET = 1e-4
"""Keeps the logarithm of a distance of zero finite, as the published code of BAL-PM does."""

AT_ONCE = 1024
"""Points whose distances to all others are computed at once."""


def prompt_entropies(
    logps: Float[Tensor, " responses"],
    row_a: Int[Tensor, " pairs"],
    row_b: Int[Tensor, " pairs"],
    prompt_index: Int[Tensor, " pairs"],
    times_sampled: Int[Tensor, " responses"] | None = None,
) -> Float[Tensor, " pairs"]:
    """Ĥ(x) = −(1/m) Σ c log π(y|x) over the different responses in the prompt's pairs, for each pair that of its prompt.

    c is how often a response was sampled, 1 where that is not given, and m = Σ c; in however many pairs a response is, it
    counts c times. In nats, summed over tokens and not divided by length: Muldrew et al., arXiv 2402.08114.

    Over all m samples of π at temperature 1 the expectation is the entropy of π(·|x), c being needed for that: without it
    a prompt that the policy has nearly decided looks undecided. Prompts whose samples are all equal form no pair and are
    not seen here; given that at least two differ, the expectation lies above the entropy.
    """
    prompts, prompt_of_pair = prompt_index.unique(return_inverse=True)
    rows = torch.cat([row_a, row_b])
    responses = torch.stack([torch.cat([prompt_of_pair, prompt_of_pair]), rows]).unique(dim=1).to(logps.device)
    sampled = torch.ones_like(logps, dtype=torch.float64) if times_sampled is None else times_sampled.to(logps.device)
    weights = sampled.to(torch.float64)[responses[1]]
    sums, counts = torch.zeros(2, len(prompts), dtype=torch.float64, device=logps.device)
    sums.index_add_(0, responses[0], -weights * logps.to(torch.float64)[responses[1]])
    counts.index_add_(0, responses[0], weights)
    return (sums / counts)[prompt_of_pair]


def answer_entropy(margins: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
    """H(σ(m)), the entropy in nats of an answer that is yes with probability σ(m), exact for margins of any size."""
    size = margins.abs()
    return softplus(-size) + size * (-size).sigmoid()


def mutual_information(margins: Float[Tensor, "heads pairs"]) -> Float[Tensor, " pairs"]:
    """BALD = H(mean of p_k) − mean of H(p_k) with p_k = σ(m_k), in nats: 0 where all heads agree, at most log 2.

    Houlsby et al., arXiv 1112.5745, for an ensemble of Bradley–Terry heads.
    """
    rarer = torch.minimum(margins.sigmoid().mean(dim=0), (-margins).sigmoid().mean(dim=0))
    total = torch.special.entr(rarer) - (1 - rarer) * (-rarer).log1p()
    information = total - answer_entropy(margins).mean(dim=0)
    return information.where(information > ROUNDING * total, 0.0)


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
