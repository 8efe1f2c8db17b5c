import pytest
import torch

from activedpo_cli.select.design.design_matrix import design_matrix, pair_uncertainty


def test_worked_by_hand() -> None:
    """λ = 2, φ = (1, 1): V = [[3, 1], [1, 3]], V⁻¹ = [[3, −1], [−1, 3]] / 8.

    ‖(1, 1)‖² in V⁻¹ = (3 − 1 − 1 + 3) / 8 = 1/2; ‖(1, −1)‖² = (3 + 1 + 1 + 3) / 8 = 1; ‖(2, 0)‖² = 12 / 8.
    """
    design = design_matrix(torch.tensor([[1.0, 1.0]]), ridge=2.0)
    assert torch.equal(design, torch.tensor([[3.0, 1.0], [1.0, 3.0]]))
    uncertainty = pair_uncertainty(torch.tensor([[1.0, 1.0], [1.0, -1.0], [2.0, 0.0]]), design.inverse())
    assert torch.allclose(uncertainty, torch.tensor([0.5, 1.0, 1.5]).sqrt())


def test_without_labels_the_design_is_the_ridge() -> None:
    assert torch.equal(design_matrix(torch.zeros(0, 3), ridge=0.5), 0.5 * torch.eye(3))


@pytest.mark.parametrize("ridge", [0.0, -1.0, float("nan")])
def test_the_ridge_must_be_positive(ridge: float) -> None:
    with pytest.raises(ValueError, match="ridge"):
        design_matrix(torch.zeros(1, 2), ridge)
