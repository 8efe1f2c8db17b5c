"""How undecided a policy is about a prompt, from the log-probabilities of its own responses."""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float, Int


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
