"""Both methods that read a reward gap, against scores written out with numpy's own solver."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from random_pool import random_pool, seeded

from activedpo_cli.select.methods import expected_gain, gap_and_norm, largest_norm, reward_gap, state_norm
from activedpo_cli.select.methods.base import Candidates
from activedpo_cli.statistics.bradley_terry import predicted_gaps


def honest_gaps(pool: Candidates, l2: float) -> Any:
    """|z·w| with w by plain gradient descent on the Bradley–Terry loss."""
    z, x = (np.array(t) for t in (pool.differences("mean_hidden"), pool.labelled_differences("mean_hidden")))
    assert pool.labelled is not None
    scale = np.sqrt((z**2).sum(axis=1).mean())
    targets = (np.array(pool.labelled.preferred) + 1) / 2
    w = np.zeros(z.shape[1])
    for _ in range(20_000):
        w -= 0.05 * ((x / scale).T @ (1 / (1 + np.exp(-(x / scale) @ w)) - targets) + l2 * w)
    return np.abs(z / scale @ w)


@pytest.mark.parametrize("l2", [0.3, 1.0])
def test_the_largest_predicted_gaps_first(l2: float) -> None:
    pool = random_pool(labelled=12)
    gaps = honest_gaps(pool, l2)
    found = reward_gap.choose(pool, 10, reward_gap.Settings(l2=l2), seeded())
    assert found.rows.tolist() == np.argsort(-gaps)[:10].tolist()
    assert found.scores.tolist() == pytest.approx(np.sort(gaps)[::-1][:10].tolist(), rel=1e-6)


def test_labels_decide_and_their_sides_do_not() -> None:
    pool = random_pool(labelled=12)
    assert pool.labelled is not None
    labelled = pool.labelled
    turned = replace(labelled, row_a=labelled.row_b, row_b=labelled.row_a, preferred=-labelled.preferred)
    other = replace(labelled, preferred=labelled.preferred.roll(1))
    first, same, different = (
        reward_gap.choose(replace(pool, labelled=given), 10, reward_gap.Settings(), seeded()).rows.tolist()
        for given in (labelled, turned, other)
    )
    assert first == same
    assert first != different


def test_the_norm_decides_before_the_first_label() -> None:
    pool = random_pool(labelled=0)
    norms = pool.differences("mean_hidden").norm(dim=1)
    for settings in (reward_gap.Settings(), reward_gap.Settings(expected=True), reward_gap.Settings(norm_weight=1)):
        assert (
            reward_gap.choose(pool, 9, settings, seeded()).rows.tolist() == norms.argsort(descending=True)[:9].tolist()
        )
    by_gradient = gap_and_norm.choose(pool, 9, gap_and_norm.Settings(), seeded()).rows
    assert torch.equal(by_gradient, largest_norm.choose(pool, 9, largest_norm.Settings(), seeded()).rows)


def test_the_sum_is_of_values_in_units_of_their_spread() -> None:
    pool = random_pool(labelled=12)
    gaps = honest_gaps(pool, 1.0)

    def units(values: Any) -> Any:
        return (values - values.mean()) / values.std()

    for method, norms in (
        (gap_and_norm, pool.pair_features().norm(dim=1)),
        (reward_gap, pool.differences("mean_hidden").norm(dim=1)),
    ):
        expected = units(gaps) + 0.7 * units(np.array(norms) ** 2)
        found = method.choose(pool, 8, method.Settings(norm_weight=0.7), seeded())
        assert found.rows.tolist() == np.argsort(-expected)[:8].tolist()


def test_the_expected_gain_is_the_change_of_the_pools_reward() -> None:
    """By a finite step, where log-probabilities are linear in a parameter."""
    pool = random_pool(labelled=12)
    assert pool.labelled is not None
    z, x = pool.differences("mean_hidden"), pool.labelled_differences("mean_hidden")
    gaps = predicted_gaps(z, x, pool.labelled.preferred, 1.0).mean
    phi = pool.pair_features()

    def pool_reward(parameter: torch.Tensor) -> float:
        return float((gaps * (phi @ parameter)).mean())

    expected = []
    for row in range(len(pool)):
        likely = float(gaps[row].sigmoid())
        step = 1e-3 * phi[row]
        gain = likely * pool_reward(step) + (1 - likely) * pool_reward(-step)
        expected.append(gain / 1e-3)
    found = expected_gain.choose(pool, len(pool), expected_gain.Settings(), seeded())
    assert found.rows.tolist() == np.argsort(-np.array(expected)).tolist()
    assert found.scores.tolist() == pytest.approx(sorted(expected, reverse=True), rel=1e-6, abs=1e-12)


def test_the_control_takes_the_longest_differences_of_states() -> None:
    pool = random_pool()
    assert pool.mean_hidden is not None
    lengths = [
        float((pool.mean_hidden[a] - pool.mean_hidden[b]).norm()) for a, b in zip(pool.row_a, pool.row_b, strict=True)
    ]
    found = state_norm.choose(pool, 9, state_norm.Settings(), seeded())
    assert found.rows.tolist() == sorted(range(len(lengths)), key=lambda row: -lengths[row])[:9]
    assert found.scores.tolist() == pytest.approx(sorted(lengths, reverse=True)[:9], rel=1e-6)
