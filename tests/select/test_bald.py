import math
from dataclasses import replace

import pytest
import torch
from random_pool import random_pool, seeded

from activedpo_cli.select.methods import bald
from activedpo_cli.select.scores.entropy import prompt_entropies


def exact_bald(spread: float) -> float:
    """H(½) − E[H(σ(m))] for m ~ N(0, spread²), by the trapezoidal rule."""
    m = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    density = (-m.square() / 2).exp() / (2 * math.pi) ** 0.5
    p = (spread * m).sigmoid()
    return math.log(2) + float(torch.trapezoid(density * (p * p.log() + (1 - p) * (1 - p).log()), m))


@pytest.mark.parametrize("l2", [0.25, 1.0, 9.0])
def test_without_labels_it_is_the_information_of_the_prior(l2: float) -> None:
    """4000 heads: margins are N(0, ‖φ‖²/(l2 · mean ‖φ‖²))."""
    pool = random_pool(prompts=2, labelled=0)
    found = bald.choose(pool, len(pool), bald.Settings(heads=4000, l2=l2), seeded())
    norms = pool.pair_features()[found.rows].norm(dim=1)
    scale = float(norms.square().mean().sqrt())
    expected = [exact_bald(norm / scale / l2**0.5) for norm in norms.tolist()]
    assert found.scores.tolist() == pytest.approx(expected, abs=0.01)


def test_one_head_never_disagrees_and_the_seed_decides() -> None:
    pool = random_pool()
    batches = [bald.choose(pool, 6, bald.Settings(heads=1), seeded(seed)) for seed in range(5)]
    assert len({tuple(batch.rows.tolist()) for batch in batches}) == 5
    assert all(batch.scores.tolist() == [0.0] * 6 for batch in batches)


def test_labels_leave_less_to_disagree_about_where_they_are() -> None:
    """Features along nine axes; forty labels along the first two, all answered alike."""
    pool = random_pool(prompts=9, labelled=0)
    features = torch.zeros(36, 9)
    features[torch.arange(36), torch.arange(36) // 4] = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(9)
    labelled = random_pool(labelled=40).labelled
    assert labelled is not None
    responses = torch.cat([torch.eye(9)[torch.arange(40) % 2], torch.zeros(40, 9)])
    labelled = replace(labelled, features=responses, preferred=torch.ones(40, dtype=torch.int64))
    pool = replace(pool, features=features, labelled=labelled)
    found = bald.choose(pool, len(pool), bald.Settings(heads=50), seeded())
    scores = torch.zeros(len(pool), dtype=torch.float64)
    scores[found.rows] = found.scores
    informative = pool.pair_features().abs().sum(dim=1) > 0
    covered = scores[informative & (pool.prompt_index < 2)]
    open_ = scores[informative & (pool.prompt_index >= 2)]
    assert float(covered.max()) < 0.25 * float(open_.min())
    assert scores[~informative].tolist() == [0.0] * int((~informative).sum())


def test_the_ensemble_is_as_wide_as_the_posterior() -> None:
    """One direction, l2 = 1, 30 labels: the spread of 400 heads against that of the posterior by integration."""
    labelled = torch.full((30, 1), 0.8, dtype=torch.float64)
    preferred = torch.tensor([1, 1, -1]).repeat(10)
    heads = bald._heads(labelled, preferred, bald.Settings(heads=400), seeded())
    w = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    log_posterior = -w.square() / 2 + 20 * (0.8 * w).sigmoid().log() + 10 * (-0.8 * w).sigmoid().log()
    posterior = (log_posterior - log_posterior.max()).exp()
    posterior /= posterior.sum()
    mean = float(posterior @ w)
    spread = float(posterior @ (w - mean).square()) ** 0.5
    assert float(heads.mean()) == pytest.approx(mean, abs=0.15 * spread)
    assert float(heads.std()) == pytest.approx(spread, rel=0.2)


def test_sides_and_scale_do_not_matter() -> None:
    pool = random_pool()
    assert pool.labelled is not None
    past = replace(
        pool.labelled,
        row_a=pool.labelled.row_b,
        row_b=pool.labelled.row_a,
        preferred=-pool.labelled.preferred,
        features=1000 * pool.labelled.features,
    )
    turned = replace(pool, row_a=pool.row_b, row_b=pool.row_a, features=1000 * pool.features, labelled=past)
    plain, other = (bald.choose(c, 9, bald.Settings(), seeded()) for c in (pool, turned))
    assert plain.rows.tolist() == other.rows.tolist()
    assert plain.scores.tolist() == pytest.approx(other.scores.tolist(), rel=1e-5)


def test_entropy_is_added_with_its_weight() -> None:
    pool = random_pool(labelled=0)
    without, with_ = (
        bald.choose(pool, len(pool), bald.Settings(entropy_weight=weight), seeded()) for weight in (0.0, 0.3)
    )
    entropies = prompt_entropies(pool.logps, pool.row_a, pool.row_b, pool.prompt_index)
    scores = [torch.zeros(len(pool), dtype=torch.float64) for _ in range(2)]
    for score, found in zip(scores, (without, with_), strict=True):
        score[found.rows] = found.scores
    assert torch.allclose(scores[1], scores[0] + 0.3 * entropies)
