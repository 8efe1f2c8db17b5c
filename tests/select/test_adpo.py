from dataclasses import replace

import pytest
import torch
from random_pool import random_pool, seeded
from torch import Tensor

from activedpo_cli.select.methods import adpo
from activedpo_cli.select.methods.base import Candidates


def honest_v(pool: Candidates) -> tuple[Tensor, Tensor]:
    """v of candidates and of labelled pairs, response by response."""

    def of(table: object, beta: float) -> Tensor:
        found = []
        for a, b in zip(table.row_a.tolist(), table.row_b.tolist(), strict=True):
            ratio_a, ratio_b = (float(table.logps[r]) - float(table.ref_logps[r]) for r in (a, b))
            mu = 1 / (1 + torch.tensor(-beta * (ratio_a - ratio_b), dtype=torch.float64).exp())
            z = table.hidden[a].double() - table.hidden[b].double()
            found.append(beta * (mu * (1 - mu)).sqrt() * z)
        return torch.stack(found)

    return of(pool, pool.beta), of(pool.labelled, pool.beta)


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_each_pick_gains_most_information(ridge: float, beta: float) -> None:
    """log det H grows most; H is rebuilt from scratch, labelled pairs included (a public implementation forgets them)."""
    pool = random_pool(beta=beta)
    v, labelled = honest_v(pool)
    chosen = adpo.choose(pool, 8, adpo.Settings(ridge=ridge), seeded())
    rows: list[int] = []
    for row, score in zip(chosen.rows.tolist(), chosen.scores.tolist(), strict=True):
        stacked = torch.cat([labelled, v[rows]])
        design = ridge * torch.eye(8, dtype=torch.float64) + stacked.T @ stacked
        gains = {r: float(torch.logdet(design + torch.outer(v[r], v[r]))) for r in range(len(pool)) if r not in rows}
        assert row == max(gains, key=gains.__getitem__)
        assert score == pytest.approx(float((v[row] @ torch.linalg.solve(design, v[row])).sqrt()))
        rows.append(row)


def test_history_enters_through_its_own_margins() -> None:
    """A labelled pair about which the policy is certain covers nothing: as if it were not labelled."""
    pool = random_pool(labelled=1)
    assert pool.labelled is not None
    certain = replace(pool.labelled, logps=torch.tensor([1e5, -1e5]))
    settings = adpo.Settings()
    rows = [
        adpo.choose(candidates, 8, settings, seeded()).rows.tolist()
        for candidates in (replace(pool, labelled=certain), replace(pool, labelled=None))
    ]
    assert rows[0] == rows[1]


def test_a_certain_pair_is_worth_little() -> None:
    pool = random_pool(labelled=0)
    row = int(adpo.choose(pool, 1, adpo.Settings(), seeded()).rows[0])
    lifted = pool.logps.clone()
    lifted[pool.row_a[row]] += 500
    assert int(adpo.choose(replace(pool, logps=lifted), 1, adpo.Settings(), seeded()).rows[0]) != row
