import math

import pytest
import torch

from activedpo_cli.select.scores.entropy import neighbour_distances, neighbour_entropy, standardised_columns


def test_columns_have_mean_zero_and_deviation_one() -> None:
    """BAL-PM's published code lacks parentheses, so that its features are shifted and not standardised."""
    generator = torch.Generator().manual_seed(0)
    points = 5 + 3 * torch.randn(40, 4, generator=generator, dtype=torch.float64)
    points[:, 3] = 7
    found, others = standardised_columns(points, points[:5] + 1)
    assert found.mean(dim=0).tolist() == pytest.approx([0] * 4, abs=1e-12)
    assert found.square().mean(dim=0).sqrt().tolist() == pytest.approx([1, 1, 1, 0])
    expected = (points[:5] + 1 - points.mean(dim=0)) / points.std(dim=0, correction=0)
    assert torch.allclose(others[:, :3], expected[:, :3])
    assert others[:, 3].tolist() == [0] * 5


@pytest.mark.parametrize("neighbours", [1, 3, 13, 100])
def test_distances_by_sorting(neighbours: int) -> None:
    points = torch.randn(30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points[7] = points[8]
    found = neighbour_distances(points, neighbours)
    for row, distance in enumerate(found.tolist()):
        others = sorted(math.dist(points[row].tolist(), points[at].tolist()) for at in range(30) if at != row)
        assert distance == pytest.approx(others[min(neighbours, 29) - 1])
    assert neighbour_distances(points[:1], 3).tolist() == [0]


def test_entropy_by_hand() -> None:
    """ψ(1) = −γ and ψ(3) = 3/2 − γ, with Euler's γ."""
    found = neighbour_entropy(torch.tensor([0.5, 2.0]).double(), torch.tensor([0, 2]), 4)
    gamma = 0.5772156649015329
    assert found.tolist() == pytest.approx([math.log(1.0001) + gamma / 4, math.log(4.0001) - (1.5 - gamma) / 4])
