import resource
from dataclasses import replace

import pytest
import torch
from random_pool import random_pool, seeded
from torch import Tensor

from activedpo_cli.select.methods import apo
from activedpo_cli.select.methods.base import Candidates
from activedpo_cli.statistics.bradley_terry import fit_bradley_terry


def honest_z(pool: Candidates) -> tuple[Tensor, Tensor]:
    hidden = pool.hidden.double()
    z = torch.stack([hidden[a] - hidden[b] for a, b in zip(pool.row_a, pool.row_b, strict=True)])
    past = pool.labelled
    assert past is not None
    hidden = past.hidden.double()
    return z, torch.stack([hidden[a] - hidden[b] for a, b in zip(past.row_a, past.row_b, strict=True)])


def honest_scores(z: Tensor, design: Tensor) -> Tensor:
    return torch.stack([row @ torch.linalg.solve(design, row) for row in z]).sqrt()


@pytest.mark.parametrize("labelled", [1, 5, 30])
@pytest.mark.parametrize("ridge", [1e-5, 1.0])
def test_published_form_takes_the_top_at_once(ridge: float, labelled: int) -> None:
    """Fewer and more labels than the eight dimensions."""
    pool = random_pool(labelled=labelled)
    z, past = honest_z(pool)
    scores = honest_scores(z, ridge * torch.eye(8, dtype=torch.float64) + past.T @ past)
    found = apo.choose(pool, 10, apo.Settings(ridge=ridge), seeded())
    assert found.rows.tolist() == scores.argsort(descending=True)[:10].tolist()
    assert found.scores.tolist() == pytest.approx(scores[found.rows].tolist(), rel=1e-6)


def test_the_default_is_the_published_one() -> None:
    assert apo.Settings().model_dump() == {"ridge": 1e-5, "greedy": False, "weighted": False}


@pytest.mark.parametrize("weighted", [False, True])
def test_greedy_updates_v_after_every_pick(weighted: bool) -> None:
    """Public defect: no update within the batch. Brute force: V, σ′-weighted or not, rebuilt for every pick."""
    pool = random_pool()
    z, past = honest_z(pool)
    if weighted:
        reward = fit_bradley_terry(past, pool.labelled.preferred, 0.1)
        z, past = ((t @ reward).sigmoid().mul((-t @ reward).sigmoid()).sqrt()[:, None] * t for t in (z, past))
    found = apo.choose(pool, 8, apo.Settings(ridge=0.1, greedy=True, weighted=weighted), seeded())
    rows: list[int] = []
    for row, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True):
        stacked = torch.cat([past, z[rows]])
        scores = honest_scores(z, 0.1 * torch.eye(8, dtype=torch.float64) + stacked.T @ stacked)
        scores[rows] = -1
        assert row == int(scores.argmax())
        assert score == pytest.approx(float(scores.max()))
        rows.append(row)


def twins() -> Candidates:
    """Prompts 0 and 1 have the same hidden states, the longest; prompt 2 another direction."""
    hidden = torch.tensor([[2.0, 0.0], [0.0, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, 1.9], [0.0, 0.0]])
    rows = torch.tensor([0, 2, 4])
    return Candidates(row_a=rows, row_b=rows + 1, prompt_index=torch.arange(3), hidden=hidden)


def test_the_second_pick_differs_where_v_matters() -> None:
    """Public defect: without an update two copies are taken. That is kept as published, and cured by `greedy`."""
    at_once = apo.choose(twins(), 2, apo.Settings(), seeded()).rows.tolist()
    assert sorted(at_once) == [0, 1]
    assert int(apo.choose(twins(), 2, apo.Settings(greedy=True), seeded()).rows[1]) == 2


@pytest.mark.parametrize("greedy", [False, True])
def test_no_pair_is_taken_twice(greedy: bool) -> None:
    """Public defect: what was selected stays in the pool and can be selected again."""
    rows = apo.choose(random_pool(), 42, apo.Settings(greedy=greedy), seeded()).rows.tolist()
    assert sorted(rows) == list(range(42))


def test_weights_are_those_of_the_fisher_matrix() -> None:
    """H is the second derivative, by autograd, of the reward's regularised loss at its minimum."""
    pool = random_pool(labelled=12)
    z, past = honest_z(pool)
    reward = fit_bradley_terry(past, pool.labelled.preferred, 0.5)

    def loss(w: Tensor) -> Tensor:
        margins, answers = past @ w, pool.labelled.preferred
        own = -(answers.sign() * margins).sigmoid().log().where(answers != 0, 0.0)
        tied = -(margins.sigmoid().log() + (-margins).sigmoid().log()).where(answers == 0, 0.0) / 2
        return (own + tied).sum() + 0.25 * w.square().sum()

    hessian = torch.autograd.functional.hessian(loss, reward)
    found = apo.choose(pool, 10, apo.Settings(ridge=0.5, weighted=True), seeded())
    scores = honest_scores(z, hessian)
    assert found.rows.tolist() == scores.argsort(descending=True)[:10].tolist()
    assert found.scores.tolist() == pytest.approx(scores[found.rows].tolist())


def test_without_labels_weights_change_nothing_but_the_scale() -> None:
    pool = replace(random_pool(), labelled=None)
    plain, weighted = (
        apo.choose(pool, 9, apo.Settings(weighted=weighted), seeded()).rows.tolist() for weighted in (False, True)
    )
    assert plain == weighted


def test_memory_grows_with_the_pool_not_its_square() -> None:
    """Public defect: an n × n product, 80 GB here, to read its diagonal."""
    count = 100_000
    rows = torch.arange(count)
    hidden = torch.randn(2 * count, 4, generator=seeded())
    pool = Candidates(row_a=rows, row_b=rows + count, prompt_index=rows, hidden=hidden)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(apo.choose(pool, 20, apo.Settings(), seeded()).rows) == 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB
