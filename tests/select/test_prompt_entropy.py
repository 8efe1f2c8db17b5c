import math
from collections import Counter
from itertools import product

import pytest
import torch

from activedpo_cli.select.scores.entropy import prompt_entropies


def test_each_prompt_has_the_mean_of_its_own_responses() -> None:
    """Two public implementations average over other prompts' responses: [0, 10, 20, 30] became [0, 3.3, 6.7, 10]."""
    values = torch.tensor([0.0, 10.0, 20.0, 30.0])
    logps = -values.repeat_interleave(3) - torch.tensor([0.0, 0.5, 1.0]).repeat(4)
    first = 3 * torch.arange(4).repeat_interleave(3)
    row_a, row_b = first + torch.tensor([0, 0, 1]).repeat(4), first + torch.tensor([1, 2, 2]).repeat(4)
    found = prompt_entropies(logps, row_a, row_b, torch.arange(4).repeat_interleave(3))
    assert found.tolist() == pytest.approx((values + 0.5).repeat_interleave(3).tolist())


def test_a_response_counts_once_in_however_many_pairs() -> None:
    """Response 0 is in three pairs: (9 + 1 + 1 + 1) / 4, not (3 · 9 + 3 · 1) / 6."""
    logps = torch.tensor([-9.0, -1.0, -1.0, -1.0])
    found = prompt_entropies(logps, torch.tensor([0, 2, 0]), torch.tensor([1, 0, 3]), torch.tensor([5, 5, 5]))
    assert found.tolist() == [3.0] * 3


def estimate(sample: tuple[int, ...], pi: list[float], *, with_copies: bool) -> float:
    """Ĥ of one prompt from samples of π, of which copies form no pair."""
    counts = Counter(sample)
    if len(counts) == 1:  # no pair; Ĥ of all samples is what it would be
        return -math.log(pi[sample[0]])
    texts = list(counts)
    pairs = torch.combinations(torch.arange(len(texts)))
    times = torch.tensor([counts[text] for text in texts]) if with_copies else None
    logps = torch.tensor([pi[text] for text in texts], dtype=torch.float64).log()
    return float(prompt_entropies(logps, *pairs.T, torch.zeros(len(pairs), dtype=torch.int64), times)[0])


@pytest.mark.parametrize("pi", [[0.9, 0.1], [0.7, 0.2, 0.1], [0.25] * 4])
@pytest.mark.parametrize("m", [2, 3, 5])
def test_over_all_samplings_the_mean_is_the_entropy(pi: list[float], m: int) -> None:
    """By enumeration: with every copy counted the estimate is unbiased, and without them it is too large."""
    samplings = list(product(range(len(pi)), repeat=m))
    probabilities = [math.prod(pi[text] for text in sample) for sample in samplings]

    def mean(with_copies: bool) -> float:
        estimates = [estimate(sample, pi, with_copies=with_copies) for sample in samplings]
        return sum(p * value for p, value in zip(probabilities, estimates, strict=True))

    entropy = -sum(p * math.log(p) for p in pi)
    assert mean(with_copies=True) == pytest.approx(entropy)
    if m > 2 and len(set(pi)) > 1:
        assert mean(with_copies=False) > entropy + 0.01


def test_the_figures_of_the_docs() -> None:
    pi = [0.9, 0.1]
    samplings = [sample for sample in product(range(2), repeat=3) if len(set(sample)) > 1]
    weights = [math.prod(pi[text] for text in sample) for sample in samplings]

    def mean(with_copies: bool) -> float:
        found = [estimate(sample, pi, with_copies=with_copies) for sample in samplings]
        return sum(w * value for w, value in zip(weights, found, strict=True)) / sum(weights)

    assert mean(with_copies=True) == pytest.approx(0.911, abs=5e-4)
    assert mean(with_copies=False) == pytest.approx(1.204, abs=5e-4)


def test_pairs_and_prompts_may_come_in_any_order() -> None:
    """An honest loop, over prompts of one to six responses, mixed up; some responses are in no pair."""
    generator = torch.Generator().manual_seed(0)
    logps = -50 * torch.rand(40, generator=generator)
    prompt_of_response = torch.randint(0, 9, (40,), generator=generator)
    pairs = [(a, b) for a in range(40) for b in range(40) if a != b and prompt_of_response[a] == prompt_of_response[b]]
    pairs = [pairs[at] for at in torch.randperm(len(pairs), generator=generator)[:30].tolist()]
    row_a, row_b = torch.tensor(pairs).T
    prompt_index = 100 - prompt_of_response[row_a]
    found = prompt_entropies(logps, row_a, row_b, prompt_index)
    for at, (a, _) in enumerate(pairs):
        own = {r for pair in pairs for r in pair if prompt_of_response[r] == prompt_of_response[a]}
        assert float(found[at]) == pytest.approx(-sum(float(logps[r]) for r in own) / len(own))
