"""How undecided a policy is about a prompt, from the log-probabilities of its own responses."""

import torch
from torch import Tensor

from activedpo_cli.shapes import Float, Int


def prompt_entropies(
    logps: Float[Tensor, " responses"],
    row_a: Int[Tensor, " pairs"],
    row_b: Int[Tensor, " pairs"],
    prompt_index: Int[Tensor, " pairs"],
) -> Float[Tensor, " pairs"]:
    """Ĥ(x) = −(1/m) Σ log π(y|x) over the m different responses in the prompt's pairs, for each pair that of its prompt.

    In nats, summed over tokens and not divided by length: Muldrew et al., arXiv 2402.08114. An unbiased estimate of the
    entropy of π(·|x) if the responses are samples of π at temperature 1; each counts once, in however many pairs it is.
    """
    prompts, prompt_of_pair = prompt_index.unique(return_inverse=True)
    rows = torch.cat([row_a, row_b])
    responses = torch.stack([torch.cat([prompt_of_pair, prompt_of_pair]), rows]).unique(dim=1)
    sums = torch.zeros(len(prompts), dtype=torch.float64, device=logps.device)
    sums.index_add_(0, responses[0].to(logps.device), -logps.to(torch.float64)[responses[1]])
    counts = responses[0].bincount(minlength=len(prompts)).to(logps.device)
    return (sums / counts)[prompt_of_pair]
